"""Writes outputs atomically: under a hidden name beside their place, then renamed, so they are whole or absent."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

_SYNCED_AT_ONCE = 16  # files; the disk commits several together, and a waiting thread costs nothing


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yields a path to write to, which is renamed to `path` when the block ends without an error.

    The bytes are on the disk before the file is renamed, so a power cut leaves either the old file or the new one.
    """
    path = Path(path)
    partial = _partial(path)
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields an empty folder to write into, which replaces `path` when the block ends without an error.

    Its content is on the disk before the folder is renamed, so a power cut leaves the old folder, none, or the new one.
    """
    path = Path(path)
    partial = _partial(path)
    partial.mkdir()
    try:
        yield partial
        _sync_all(partial)
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync_all(folder: Path) -> None:
    """Syncs a folder to the disk: first the bytes of its files, then the folders with their names."""
    folders, files = [], []
    for place, _, names in os.walk(folder):
        folders.append(Path(place))
        files += [Path(place, name) for name in names if not Path(place, name).is_symlink()]
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as pool:
        list(pool.map(_sync, files))
    for inside in reversed(folders):
        _sync(inside)


def _sync(path: Path) -> None:
    """Waits until a file's bytes or a folder's names are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _partial(path: Path) -> Path:
    """The hidden name beside `path`. What a killed run left there is removed.

    The name keeps the ending of `path`, because Keras and OpenCV choose a format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    if partial.is_dir():
        shutil.rmtree(partial)
    else:
        partial.unlink(missing_ok=True)
    return partial
