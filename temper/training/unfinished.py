"""Saves the state of an unfinished phase, so that a run that was killed can resume and end with the same bits.

The state lies in `.temper/unfinished/` of the repository and not in the stage's outputs, which DVC removes before the
stage runs. Its folder is named after a hash of everything that the stage depends on, so a run with a changed param,
file or library version starts afresh.
"""

import hashlib
import json
import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import yaml

from temper import devices
from temper.base import wishes
from temper.base.atomic import atomic_file
from temper.base.locks import held
from temper.base.machine import is_first_process
from temper.base.paths import scratch
from temper.settings.base import StageSettings

Arrays = list[npt.NDArray[Any]]


@dataclass
class State:
    """A phase after some epochs. Everything else follows from the seed and the epoch's number."""

    history: list[dict[str, float]]  # a record for each finished epoch
    weights: Arrays  # all variables of the model, with BatchNorm's statistics and the random state of dropout layers
    optimizer: Arrays
    best: Arrays  # the weights of the best epoch so far
    start: dict[str, float] | None = None  # the figures before the first epoch, if they count as epoch 0


class Unfinished:
    """The saved state of one phase."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "state.npz"

    def load(self) -> State | None:
        """The state after the last saved epoch, or `None`. A damaged file is put aside with a message."""
        if not self._path.exists():
            return None
        try:
            with np.load(self._path) as saved:
                groups = {name: [saved[key] for key in saved.files if key.startswith(f"{name}_")] for name in _GROUPS}
                return State(json.loads(str(saved["history"])), **groups, start=json.loads(str(saved["start"])))
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            self.put_aside(f"{type(error).__name__}: {error}")
            return None

    def put_aside(self, reason: str) -> None:
        """Renames a state that cannot be used, so that the phase starts afresh and the file is not lost."""
        damaged = self._path.with_name("damaged.npz")
        self._path.replace(damaged)
        print(f"{damaged}: expected the state of an unfinished phase, received {reason}; it was put aside")

    def save(self, state: State) -> None:
        """Replaces the saved state atomically."""
        # JSON keeps every bit of a float: Python writes the shortest text that reads back as the same number.
        saved: dict[str, Any] = {name: np.array(json.dumps(getattr(state, name))) for name in ("history", "start")}
        for name in _GROUPS:
            saved |= {f"{name}_{number:06}": array for number, array in enumerate(getattr(state, name))}
        with atomic_file(self._path) as partial, partial.open("wb") as file:
            np.savez(file, **saved)


class ReadOnly(Unfinished):
    """The state for all but the first of several processes that train together: only the first process writes it."""

    def put_aside(self, reason: str) -> None:
        """Does nothing."""

    def save(self, state: State) -> None:
        """Does nothing."""


_GROUPS = ("weights", "optimizer", "best")
_ABANDONED = 30 * 24 * 3600  # seconds


@contextmanager
def unfinished(stage: str, settings: StageSettings) -> Iterator[Unfinished]:
    """The unfinished state of a stage with its current settings; removed when the block ends without an error.

    If another process is training the same phase, this one waits for it to end and then resumes from its state.
    """
    root = scratch("unfinished")
    folder = root / f"{stage}-{fingerprint(stage, settings)}"
    if not is_first_process():
        yield ReadOnly(folder)
        return
    _forget_abandoned(root)
    waiting = root / f"{folder.name}.waiting-{os.getpid()}"
    waiting.touch()  # tells the process that is training to leave its state for this one
    try:
        with held(root / f"{folder.name}.lock", f"{stage}: waiting for the process that trains with these very params"):
            waiting.unlink()
            folder.mkdir(exist_ok=True)
            yield Unfinished(folder)
            if not _waiting(root, folder.name) and not _awaited_without_a_gpu(root, stage):
                shutil.rmtree(folder)
    finally:
        waiting.unlink(missing_ok=True)


def _waiting(root: Path, name: str) -> bool:
    """Whether a living process waits for this phase."""
    pids = [int(path.name.rsplit("-", 1)[1]) for path in root.glob(f"{name}.waiting-*")]
    return any(_is_alive(pid) for pid in pids)


def _awaited_without_a_gpu(root: Path, stage: str) -> bool:
    """Whether a living process with the same params waits for a GPU; it cannot compute its fingerprint yet."""
    return any(root.glob(f"{stage}-gpu-*")) and _waiting(root, wishes.name_of(stage))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _forget_abandoned(root: Path) -> None:
    """Removes states and locks that no run has touched for a month, such as those of params edited after a kill.

    The `.waiting-PID` files of processes that have died are removed at once.
    """
    for path in root.glob("*.waiting-*"):
        if not _is_alive(int(path.name.rsplit("-", 1)[1])):
            path.unlink(missing_ok=True)
    for path in [*root.glob("*/state.npz"), *root.glob("*.lock")]:
        with suppress(OSError):  # another process may have removed it first
            if time.time() - path.stat().st_mtime > _ABANDONED:
                shutil.rmtree(path.parent) if path.name == "state.npz" else path.unlink()


def fingerprint(stage: str, settings: StageSettings) -> str:
    """16 hex digits, a hash of all that `stage` depends on.

    That is its settings, the files among its deps in dvc.yaml, the versions of the libraries that compute, the backend
    and the number of devices.
    """
    declared = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]
    versions = {
        name: _version(name)
        for name in ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy", "opencv-python-headless")
    }
    computing = keras.backend.backend(), devices.spread().devices
    digest = hashlib.sha256(json.dumps([settings.model_dump(), versions, *computing], sort_keys=True).encode())
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
