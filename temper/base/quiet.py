"""Keeps what TensorFlow and JAX print at every start off the terminal, and loses nothing else.

They write about ten lines straight to file descriptor 2 before a stage has said a word, and no environment variable
stops them. `keep_out_noise` puts a pipe to another process, temper/noise.py, in place of that descriptor: it drops the
lines that it knows as noise and passes on all others at once. Being a process of its own, it also passes on what a
library wrote last before it called `abort`, ran out of memory or was killed.

Python itself goes on writing to the real stderr: tracebacks, warnings and progress bars never take the detour.
temper/noise.py is run, not imported. It cannot change what a stage computes, so it is no dependency of any stage, and
a new line of noise in its table makes nothing run again.
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
_LAST_LINES = 2  # seconds that the end of the process waits for them


def keep_out_noise() -> None:
    """Filters what this process writes to file descriptor 2 from now on; call it before keras is imported.

    What is dropped can be read in .temper/logs/<stage>.txt of the repository until the stage's next run.
    Where the filter cannot be started, everything is shown.
    """
    if sys.stderr is None:  # the process was started without one
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
    faulthandler.enable(2)  # through the pipe, so that a trace stands whole below what was written before it
    atexit.register(_pass_on_last_lines, process, real)


def _start_filter(real: int) -> "subprocess.Popen[bytes]":
    """Starts temper/noise.py, which ends when the last writer of its pipe does; Ctrl-C must not reach it before."""
    command = [sys.executable, "-I", "-S", str(FILTER), str(_log())]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=real, stderr=real, start_new_session=True)


def _log() -> Path:
    """Where the dropped lines of this program go: `python -m stages.backbone` has .temper/logs/backbone.txt."""
    return (repository() / ".temper" / "logs" / f"{program()}.txt").absolute()


def _pass_on_last_lines(process: "subprocess.Popen[bytes]", real: int) -> None:
    """Waits until the filter has written everything, so that what starts next does not write before it."""
    os.dup2(real, 2)  # closes this process's end of the pipe
    with suppress(subprocess.TimeoutExpired):  # a child that lives on has the pipe, and the filter with it
        process.wait(_LAST_LINES)
