"""What a stage does first, before anything heavy is imported: it ties itself to the `dvc` that started it.

    from temper.base import starting

    if __name__ == "__main__":
        starting.begin()

A `dvc` that is killed while a stage still imports would otherwise leave a trainer behind, which goes on for hours and
writes into the outputs of the next run (law 12).
"""

# Only what is needed to answer Ctrl-C is imported here: until `begin` is called, it ends in a traceback.
import os
import signal
import sys
from types import TracebackType


def begin(with_keras: bool = False, on_gpu: bool = False) -> None:
    """Ends this process when the `dvc` that started it is gone, now or later, and at Ctrl-C without a word.

    Args:
        with_keras: whether the stage is about to import Keras: its backend is then chosen by params.yaml, and what that
            prints at every start kept out.
        on_gpu: whether it computes with it, on GPUs that it then has for itself; otherwise Keras sees no GPU.
    """
    end_at_ctrl_c()
    if "DVC_STAGE" in os.environ and sys.platform.startswith("linux"):
        import ctypes  # noqa: PLC0415

        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if is_orphan(os.getppid()):  # it died before the call
            os.kill(os.getpid(), signal.SIGKILL)
    sys.excepthook = _in_one_line
    if with_keras:
        prepare_keras(on_gpu)


def prepare_keras(on_gpu: bool) -> None:
    """What `begin` does for Keras, for a stage that knows only from its inputs whether it needs it."""
    from temper.base import backend, gpus, quiet  # noqa: PLC0415
    from temper.base.errors import TemperError  # noqa: PLC0415

    try:
        backend.choose()
        if on_gpu:
            gpus.lease(backend.devices())
        else:
            gpus.hide()
    except (TemperError, OSError) as error:
        sys.exit(f"error: {error}")
    quiet.keep_out_noise()


def end_at_ctrl_c() -> None:
    """Lets Ctrl-C end the process as it ends any program, where Python would raise an error from within an import.

    `running.run` takes it back, so that what a stage began can be put in order. A process that was started to ignore
    Ctrl-C goes on ignoring it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_at_ctrl_c() -> None:
    """Lets Ctrl-C raise KeyboardInterrupt again, and not be lost where Python drops what is raised."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = _ask_again_at_ctrl_c


def _ask_again_at_ctrl_c(dropped: "sys.UnraisableHookArgs") -> None:
    """Sends a Ctrl-C again that came while an object was being destroyed: Python prints such an error and goes on.

    Training destroys objects all the time, so it does happen. The signal is sent a moment later, by another thread:
    raised here, it would be dropped once more.
    """
    import threading  # noqa: PLC0415

    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
        return
    soon = threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    soon.daemon = True
    soon.start()


def _in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints an error that ends the process: a lack of memory, which imports meet too, in one line; Ctrl-C not."""
    from temper.base import memory  # noqa: PLC0415

    if issubclass(kind, KeyboardInterrupt):  # a second one, while the first was answered
        return
    line = memory.in_one_line(error)
    if line is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {line}", file=sys.stderr)


def is_orphan(parent: int) -> bool:
    """Whether the parent is not the `dvc` that started this process, but who adopts the children of the dead.

    That is the first process of the machine or of a container, or a session manager. A `dvc` shares the session of its
    children, which such a process usually does not; in a container it may, but then it is no `dvc`.
    """
    from pathlib import Path  # noqa: PLC0415

    try:
        if os.getsid(parent) != os.getsid(0):
            return True
        return parent == 1 and b"dvc" not in Path("/proc/1/cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return True
