"""Outputs that are whole or absent: written beside their place under a hidden name, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends without an error.

    The bytes are on the disk before the name is: a power cut leaves the old file or the new one.
    """
    path = Path(path)
    partial = _partial(path)
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder to write into, which becomes `path`, replacing it, when the block ends without an error."""
    path = Path(path)
    partial = _partial(path)
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _partial(path: Path) -> Path:
    """The hidden name beside `path`, with what a killed run left there removed.

    It keeps the ending of `path`, because Keras and OpenCV choose a format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    if partial.is_dir():
        shutil.rmtree(partial)
    else:
        partial.unlink(missing_ok=True)
    return partial
