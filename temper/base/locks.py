"""Locks between processes, which a killed process lets go of."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def held(path: Path, waiting: str) -> Iterator[None]:
    """Holds the lock at `path`; waits for whoever holds it, however long that takes.

    The file is there for as long as the lock is held, and holds the process's number.

    Args:
        waiting: what is printed when there is somebody to wait for, who is named after it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    said = False
    while True:
        with path.open("a+", encoding="utf-8") as lock:
            said = _wait(lock, waiting, said)
            if not _is_at(lock, path):
                continue  # who held it removed the file: this is not the lock any more
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            _remove_abandoned(path)
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _remove_abandoned(own: Path) -> None:
    """Removes the files of other locks beside this one that nobody holds: those of killed processes."""
    for path in own.parent.glob("*.lock"):
        with suppress(OSError), path.open("r", encoding="utf-8") as lock:
            if path != own:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(lock, path):
                    path.unlink()


def _wait(lock: IO[str], waiting: str, said: bool) -> bool:
    """Takes the lock of an open file; says once whom it waits for, and returns whether it was said."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not said:
            lock.seek(0)
            print(f"{waiting} (process {lock.read().strip() or 'unknown'})", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return True
    return said


def _is_at(lock: IO[str], path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False
