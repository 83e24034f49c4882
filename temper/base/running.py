"""Runs a stage: loads its settings, reports errors in one line, and keeps other processes from its outputs."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from temper.base import loading, memory, starting
from temper.base.errors import TemperError
from temper.base.locks import held
from temper.base.machine import PROCESS, is_first_process
from temper.base.paths import program
from temper.settings.base import StageSettings

Settings = TypeVar("Settings", bound=StageSettings)


def run(main: Callable[[Settings], None], settings: type[Settings], together: bool = False) -> None:
    """Runs a stage's `main` on its settings, from the params.yaml in the working folder.

    An error that the user can fix prints one line on stderr and ends with exit code 1; a bug keeps its traceback.
    Ctrl-C ends with exit code 130.

    Args:
        together: whether several processes can run this stage together; the first one then writes (docs/scale.md).
    """
    os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")  # read by TensorFlow's first operation, not by its import
    try:
        starting.raise_at_ctrl_c()
        _run(main, settings, together)
    except TemperError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        lack = memory.in_one_line(error)
        if lack is not None:
            sys.exit(f"error: {lack}")
        if isinstance(error, OSError):
            sys.exit(f"error: {' '.join(str(error).split())}: nothing half-written was kept; mend it and run again")
        raise
    finally:
        starting.end_at_ctrl_c()  # nothing is left to clean up


def _run(main: Callable[[Settings], None], settings: type[Settings], together: bool) -> None:
    # The whole file is checked before any work. The check is imported by its name as a string, because no stage may
    # depend on it: it can only refuse and makes no output stale (law 7). It knows all sources and detectors, which no
    # stage does.
    importlib.import_module("temper.settings.check").refuse_wrong_params(loading.PARAMS)
    # Only one process at a time writes the outputs of a stage, whatever its params and whoever started it.
    name = program()
    if not is_first_process():
        if not together:
            raise TemperError(
                f"{name}: expected process 0 alone, received {PROCESS}={os.environ[PROCESS]}; only fine_tune is "
                "run by several processes together (docs/scale.md)"
            )
        return main(loading.load(settings))
    with held(Path(".temper") / "locks" / f"{name}.lock", f"{name}: waiting for the process that runs it here"):
        main(loading.load(settings))
