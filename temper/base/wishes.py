"""Who waits for a GPU to compute what a stage is set to: so that who computes the very same leaves its result."""

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
    """The name of the notes of who waits to run a stage with the params that it has now; it has no hyphen at its end.

    dvc.yaml says which params these are. Comparing them needs neither the stage's settings nor what it computes with.
    """
    import yaml  # noqa: PLC0415 (only who waits, and who trains)

    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    content = loading.read()
    values = {key: _value(content, key) for key in stages.get(stage, {}).get("params", [])}
    return f"{stage}-gpu-{hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]}"


@contextmanager
def noted() -> Iterator[None]:
    """Says that this process waits, as long as the block lasts; without dvc.yaml nobody asks.

    Raises:
        TemperError: params.yaml is wrong, which nobody should learn only after hours of waiting.
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
    """The value of a dotted key, `None` where there is none."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content
