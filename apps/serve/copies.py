"""Where the copies of served models lie: a temporary folder that goes with its process, whatever ends that.

The folder is locked by the process. A process that is killed cannot remove it, but its lock ends: the next server of
the same user removes the folder.
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
    """A temporary folder of this process.

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
            os.close(self._lock)  # another server took it for abandoned in between

    def close(self) -> None:
        """Removes it; the end of the process does so, too."""
        self._removal()


def _remove_abandoned() -> None:
    """Removes the folders of processes of this user that are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.getuid() and _is_ours(lock, folder):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _is_ours(lock: int, folder: Path) -> bool:
    """Takes the lock of an open folder; whether that was possible, and the folder is still there."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock), folder.stat())
    except OSError:
        return False
