"""The first thing that a stage does, before it imports anything heavy: it ties its life to the `dvc` that started it.

    from temper.base import starting

    if __name__ == "__main__":
        starting.begin()

Otherwise a `dvc` that is killed would leave the stage behind, which would train for hours and write into the outputs
of the next run (law 12).
"""

# Imports only what handling Ctrl-C needs: until `begin` is called, Ctrl-C ends in a traceback.
import os
import signal
import sys
from types import TracebackType


def begin(with_keras: bool = False, on_gpu: bool = False) -> None:
    """Ends this process when the `dvc` that started it is gone, now or later, and silently on Ctrl-C.

    Args:
        with_keras: whether the stage will import Keras. If so, its backend is chosen from params.yaml, and the lines
            that the backend prints at every start are kept off the terminal.
        on_gpu: whether the stage computes with Keras. If so, it leases GPUs; otherwise Keras sees no GPU.
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
    """The part of `begin` for Keras, for a stage that knows only from its inputs whether it needs Keras."""
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
    """Lets Ctrl-C end the process without a traceback, while Python would raise KeyboardInterrupt within an import.

    `running.run` reverts this, so that a stage can clean up. A process that was started to ignore Ctrl-C still ignores
    it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_at_ctrl_c() -> None:
    """Lets Ctrl-C raise KeyboardInterrupt again, even if it comes at a point where Python drops exceptions."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = _ask_again_at_ctrl_c


def _ask_again_at_ctrl_c(dropped: "sys.UnraisableHookArgs") -> None:
    """Sends a Ctrl-C again that came while an object was being destroyed, when Python prints the error and goes on.

    Training destroys objects all the time, so this does happen. Another thread sends the signal a moment later, because
    an exception raised here would be dropped again.
    """
    import threading  # noqa: PLC0415

    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
        return
    soon = threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    soon.daemon = True
    soon.start()


def _in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints an error that ends the process: in one line if memory ran out (also during imports); nothing on Ctrl-C."""
    from temper.base import memory  # noqa: PLC0415

    if issubclass(kind, KeyboardInterrupt):  # a second Ctrl-C, while the first one was being handled
        return
    line = memory.in_one_line(error)
    if line is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {line}", file=sys.stderr)


def is_orphan(parent: int) -> bool:
    """Whether the `dvc` that started this process has died, so that its parent is now a process that adopts orphans.

    Orphans are adopted by the first process of the machine or of a container, or by a session manager. A `dvc` is in
    the same session as its children; an adopting process usually is not. In a container it may be, but then it is not a
    `dvc`.
    """
    from pathlib import Path  # noqa: PLC0415

    try:
        if os.getsid(parent) != os.getsid(0):
            return True
        return parent == 1 and b"dvc" not in Path("/proc/1/cmdline").read_bytes()
    except OSError:  # the parent has ended meanwhile
        return True
