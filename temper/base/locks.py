"""Locks between processes. The lock of a killed process is released at once."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def held(path: Path, waiting: str) -> Iterator[None]:
    """Holds the lock at `path`; waits as long as another process holds it.

    The file exists only while the lock is held, and contains the process id of the holder.

    Args:
        waiting: the message that is printed before waiting, followed by the process id of the holder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    said = False
    while True:
        with path.open("a+", encoding="utf-8") as lock:
            said = _wait(lock, waiting, said)
            if not _is_at(lock, path):
                continue  # the last holder has removed the file, so this open file is no longer the lock
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
    """Removes other lock files in the same folder that nobody holds: killed processes have left them."""
    for path in own.parent.glob("*.lock"):
        with suppress(OSError), path.open("r", encoding="utf-8") as lock:
            if path != own:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(lock, path):
                    path.unlink()


def _wait(lock: IO[str], waiting: str, said: bool) -> bool:
    """Takes the lock of an open file; prints once which process it waits for.

    Args:
        said: whether the message was printed before.

    Returns:
        whether the message has been printed by now.
    """
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
