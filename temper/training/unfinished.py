"""The state of an unfinished phase, so that a run killed anywhere goes on and ends in the same bits.

It lies outside DVC's outputs, which DVC removes before a stage runs, in `.temper/unfinished/` of the repository, in a
folder named after a hash of everything that the stage depends on: a changed param, file or version starts afresh.
"""

import fcntl
import hashlib
import json
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

from temper.base.atomic import atomic_file
from temper.base.errors import TemperError
from temper.base.paths import scratch
from temper.settings.base import StageSettings

Arrays = list[npt.NDArray[Any]]


@dataclass
class State:
    """A phase after some epochs. What is not here follows from the seed and the epoch's number."""

    history: list[dict[str, float]]
    weights: Arrays  # all variables of the model: those of BatchNorm and of dropout's random state too
    optimizer: Arrays
    best: Arrays  # the weights of the best epoch so far
    start: dict[str, float] | None = None  # the figures before the first epoch, where they count


class Unfinished:
    """The saved state of one phase."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "state.npz"

    def load(self) -> State | None:
        """The state after the last epoch that was saved, or `None`."""
        if not self._path.exists():
            return None
        with np.load(self._path) as saved:
            groups = {name: [saved[key] for key in saved.files if key.startswith(f"{name}_")] for name in _GROUPS}
            return State(json.loads(str(saved["history"])), **groups, start=json.loads(str(saved["start"])))

    def save(self, state: State) -> None:
        """Replaces the saved state, at once or not at all."""
        # JSON keeps a float's every bit: Python writes the shortest text that reads back the same.
        saved: dict[str, Any] = {name: np.array(json.dumps(getattr(state, name))) for name in ("history", "start")}
        for name in _GROUPS:
            saved |= {f"{name}_{number:06}": array for number, array in enumerate(getattr(state, name))}
        with atomic_file(self._path) as partial, partial.open("wb") as file:
            np.savez(file, **saved)


_GROUPS = ("weights", "optimizer", "best")
_ABANDONED = 30 * 24 * 3600  # seconds


@contextmanager
def unfinished(stage: str, settings: StageSettings) -> Iterator[Unfinished]:
    """The unfinished state of a stage as it is set now; removed when the block ends without an error.

    Raises:
        TemperError: another process is running this very phase.
    """
    root = scratch("unfinished")
    folder = root / f"{stage}-{fingerprint(stage, settings)}"
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


def fingerprint(stage: str, settings: StageSettings) -> str:
    """16 hex digits of all that `stage` depends on: its settings, its deps in dvc.yaml, the libraries that compute."""
    declared = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]
    versions = {
        name: _version(name)
        for name in ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy", "opencv-python-headless")
    }
    digest = hashlib.sha256(
        json.dumps([settings.model_dump(), versions, keras.backend.backend()], sort_keys=True).encode()
    )
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


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return [inside for inside in path.rglob("*") if inside.is_file() and inside.parent.name != "__pycache__"]
