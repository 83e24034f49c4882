"""Keeps the lines that TensorFlow and JAX print at every start off the terminal, and no others.

They write about ten lines directly to file descriptor 2 before a stage prints anything, and no environment variable
prevents that. `keep_out_noise` replaces the descriptor by a pipe to another process, temper/noise.py. That process
drops the lines that it knows as noise and passes on all others at once. Because it is a separate process, it also
passes on the last lines that a library wrote before it called `abort`, ran out of memory or was killed.

Python itself still writes to the real stderr, so tracebacks, warnings and progress bars do not go through the pipe.
temper/noise.py is run and not imported. It cannot change what a stage computes, so no stage depends on it, and a new
line of noise in its table does not make a stage run again.
"""

import atexit
import faulthandler
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from temper.base.paths import program, repository

FILTER = Path(__file__).parent.parent / "noise.py"
_LAST_LINES = 2  # seconds that the process waits at its end for the filter's last lines


def keep_out_noise() -> None:
    """Filters what this process writes to file descriptor 2 from now on; call it before Keras is imported.

    The dropped lines can be read in .temper/logs/<stage>.txt of the repository until the stage's next run. If the
    filter cannot be started, everything is shown.
    """
    if sys.stderr is None:  # the process was started without stderr
        return
    sys.stderr.flush()
    real = os.dup(2)
    try:
        process = _start_filter(real)
    except OSError:
        os.close(real)
        return
    assert process.stdin is not None
    os.dup2(process.stdin.fileno(), 2)
    process.stdin.close()
    sys.stderr = os.fdopen(real, "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
    faulthandler.enable(2)  # through the pipe, so that a trace comes in one piece after what was written before it
    atexit.register(_pass_on_last_lines, process, real)


def _start_filter(real: int) -> "subprocess.Popen[bytes]":
    """Starts temper/noise.py, which ends with the last writer of its pipe; in its own session, so Ctrl-C spares it."""
    command = [sys.executable, "-I", "-S", str(FILTER), str(_log())]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=real, stderr=real, start_new_session=True)


def _log() -> Path:
    """The file for the dropped lines: .temper/logs/backbone.txt for `python -m stages.backbone`."""
    return (repository() / ".temper" / "logs" / f"{program()}.txt").absolute()


def _pass_on_last_lines(process: "subprocess.Popen[bytes]", real: int) -> None:
    """Waits until the filter has written everything, so that the next program's output comes after it."""
    os.dup2(real, 2)  # closes this process's end of the pipe
    with suppress(subprocess.TimeoutExpired):  # a child that is still alive keeps the pipe open, and so the filter
        process.wait(_LAST_LINES)
