"""What a stage does first, before anything heavy is imported: it ties itself to the `dvc` that started it.

    from temper.base import starting

    if __name__ == "__main__":
        starting.begin()

A `dvc` that is killed while a stage still imports would otherwise leave a trainer behind, which goes on for hours and
writes into the outputs of the next run (law 12).
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

from temper.base import quiet


def begin(with_keras: bool = False) -> None:
    """Ends this process when the `dvc` that started it is gone, now or later.

    Args:
        with_keras: whether the stage is about to import Keras: what TensorFlow prints at every start is then kept out.
    """
    if "DVC_STAGE" in os.environ and sys.platform.startswith("linux"):
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if is_orphan(os.getppid()):  # it died before the call
            os.kill(os.getpid(), signal.SIGKILL)
    if with_keras:
        quiet.keep_out_noise()


def is_orphan(parent: int) -> bool:
    """Whether the parent is not the `dvc` that started this process, but who adopts the children of the dead.

    That is the first process of the machine or of a container, or a session manager. A `dvc` shares the session of its
    children, which such a process usually does not; in a container it may, but then it is no `dvc`.
    """
    try:
        if os.getsid(parent) != os.getsid(0):
            return True
        return parent == 1 and b"dvc" not in Path("/proc/1/cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return True
