"""Notes by processes that wait for a GPU, so that a process which computes the same leaves its state for them."""

import hashlib
import importlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from temper.base import loading
from temper.base.paths import program, scratch


def name_of(stage: str) -> str:
    """The name of the notes of processes that wait for a GPU to run a stage with its current params.

    dvc.yaml lists the stage's params. So the name needs neither the stage's settings nor the libraries that compute.
    """
    import yaml  # noqa: PLC0415 (only processes that wait or train need it)

    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    content = loading.read()
    values = {key: _value(content, key) for key in stages.get(stage, {}).get("params", [])}
    return f"{stage}-gpu-{hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]}"


@contextmanager
def noted() -> Iterator[None]:
    """Within its block, a file notes that this process waits; without a dvc.yaml, nobody would read such a note.

    Raises:
        TemperError: params.yaml is wrong. Otherwise the user would learn this only after hours of waiting.
    """
    if not Path("dvc.yaml").exists():
        yield
        return
    importlib.import_module("temper.settings.check").refuse_wrong_params(loading.PARAMS)  # as `running` does, later
    note = scratch("unfinished") / f"{name_of(program())}.waiting-{os.getpid()}"
    note.touch()
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def _value(content: Any, key: str) -> Any:
    """The value of a dotted key; `None` if there is none."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content
