"""The state of an unfinished heat, so that a run killed anywhere goes on and ends in the same bits.

It lies outside DVC's outputs, which DVC removes before a stage runs, in `.temper/unfinished/` of the repository, in a
folder named after a hash of everything that the stage depends on: a changed param, file or version starts afresh.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import yaml

from temper.atomic import atomic_file
from temper.errors import TemperError
from temper.params import Params

Arrays = list[npt.NDArray[Any]]


@dataclass
class State:
    """A heat after some epochs. What is not here follows from the seed and the epoch's number."""

    history: list[dict[str, float]]
    weights: Arrays  # all variables of the model: those of BatchNorm and of dropout's random state too
    optimizer: Arrays
    best: Arrays  # the weights of the best epoch so far


class Unfinished:
    """The saved state of one heat."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "state.npz"

    def load(self) -> State | None:
        """The state after the last epoch that was saved, or `None`."""
        if not self._path.exists():
            return None
        with np.load(self._path) as saved:
            groups = {name: [saved[key] for key in saved.files if key.startswith(f"{name}_")] for name in _GROUPS}
            return State(json.loads(str(saved["history"])), **groups)

    def save(self, state: State) -> None:
        """Replaces the saved state, at once or not at all."""
        arrays = {f"{name}_{number:06}": array for name in _GROUPS for number, array in enumerate(getattr(state, name))}
        with atomic_file(self._path) as partial, partial.open("wb") as file:
            # JSON keeps a float's every bit: Python writes the shortest text that reads back the same.
            np.savez(file, history=np.array(json.dumps(state.history)), **arrays)


_GROUPS = ("weights", "optimizer", "best")
_ABANDONED = 30 * 24 * 3600  # seconds


@contextmanager
def unfinished(stage: str, params: Params) -> Iterator[Unfinished]:
    """The unfinished state of a stage as it is set now; removed when the block ends without an error.

    Raises:
        TemperError: another process is running this very heat.
    """
    root = Path(os.environ.get("DVC_ROOT", ".")) / ".temper" / "unfinished"
    folder = root / f"{stage}-{fingerprint(stage, params)}"
    folder.mkdir(parents=True, exist_ok=True)
    _forget_abandoned(root)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TemperError(f"{stage}: another process runs it with these params; wait for it or stop it") from None
        yield Unfinished(folder)
        shutil.rmtree(folder)


def _forget_abandoned(root: Path) -> None:
    """Removes states that no run has touched for a month: those of params that were edited after a kill."""
    for state in root.glob("*/state.npz"):
        if time.time() - state.stat().st_mtime > _ABANDONED:
            shutil.rmtree(state.parent)


def fingerprint(stage: str, params: Params) -> str:
    """16 hex digits of all that `stage` depends on: its params and deps in dvc.yaml, and the libraries that compute."""
    declared = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]
    values = {key: _value(params.model_dump(), key) for key in declared["params"]}
    versions = {
        name: _version(name)
        for name in ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy", "opencv-python-headless")
    }
    digest = hashlib.sha256(json.dumps([values, versions, keras.backend.backend()], sort_keys=True).encode())
    for dep in sorted(declared["deps"]):
        for path in sorted(_files(Path(dep))):
            with path.open("rb") as file:
                digest.update(f"\n{path} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
    return digest.hexdigest()[:16]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _value(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _files(path: Path) -> list[Path]:
    return [inside for inside in path.rglob("*") if inside.is_file()] if path.is_dir() else [path]
