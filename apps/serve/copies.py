"""A temporary folder for copies of the served models, which is removed however its process ends.

The process locks the folder. A process that is killed cannot remove its folder, but its lock is released, and the next
server of the same user removes it.
"""

import fcntl
import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

_PREFIX = "temper-serve-"


class Copies:
    """The temporary folder of this process.

    Attributes:
        folder: its path.
    """

    def __init__(self) -> None:
        _remove_abandoned()
        while True:
            self.folder = tempfile.mkdtemp(prefix=_PREFIX)
            self._lock = os.open(self.folder, os.O_RDONLY)
            if _is_ours(self._lock, Path(self.folder)):
                self._removal = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
                return
            os.close(self._lock)  # another server considered it abandoned before it was locked

    def close(self) -> None:
        """Removes the folder; the normal end of the process does so, too."""
        self._removal()


def _remove_abandoned() -> None:
    """Removes the folders of this user's processes that no longer exist."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.getuid() and _is_ours(lock, folder):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _is_ours(lock: int, folder: Path) -> bool:
    """Locks an open folder; returns whether that was possible and the folder still exists."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock), folder.stat())
    except OSError:
        return False
