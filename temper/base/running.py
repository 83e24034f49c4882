"""How a stage runs: settings in, one-line errors out, and never longer than the `dvc` that started it."""

import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import TypeVar

from temper.base import loading
from temper.base.errors import TemperError
from temper.settings.base import StageSettings

Settings = TypeVar("Settings", bound=StageSettings)


def run(main: Callable[[Settings], None], settings: type[Settings]) -> None:
    """Runs a stage's `main` on its settings, from the params.yaml of the working folder.

    What the user can mend ends in one line on stderr and exit code 1; a defect keeps its traceback.
    """
    _die_with_dvc()
    os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")  # read by TensorFlow's first operation, not by its import
    try:
        # The whole file is checked before any work. Imported by name: the check only refuses, so it makes no output
        # stale and is no dep of any stage (law 7); and it knows all sources and detectors, which no stage does.
        importlib.import_module("temper.settings.check").refuse_wrong_params(loading.PARAMS)
        main(loading.load(settings))
    except TemperError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {' '.join(str(error).split())}: nothing half-written was kept; mend it and run again")
    except KeyboardInterrupt:
        sys.exit(130)


def _die_with_dvc() -> None:
    """Ends this process when the `dvc` that started it is gone.

    A killed `dvc` would otherwise leave a trainer behind that goes on for hours and writes into the
    outputs of the next run. Linux only; elsewhere the lock on the unfinished state still guards the outputs.
    """
    if "DVC_STAGE" not in os.environ or not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os.kill(os.getpid(), signal.SIGKILL)
