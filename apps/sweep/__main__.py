"""python -m apps.sweep SWEEP.yaml: searches for the best params. Each trial is a DVC experiment in a copy of the
repository.

DVC takes cached results from its cache: a sweep over `lr` runs nothing before `fine_tune`. A sweep that was interrupted
or killed continues when it is started again, and repeats no finished trial. The study, the logs and the pictures are in
.temper/sweeps/NAME.
"""

import argparse
import importlib.util
import re
import signal
from pathlib import Path
from types import FrameType

from apps.sweep import space
from apps.sweep.settings import Sweep
from temper.base import loading
from temper.base.errors import TemperError
from temper.base.loading import PARAMS
from temper.base.locks import held
from temper.base.paths import scratch
from temper.command_line import run


def read_sweep(path: Path) -> Sweep:
    """Reads and validates a SWEEP.yaml. For a grid without `trials`, sets `trials` to the number of its points.

    Raises:
        TemperError: the file is wrong, by itself or together with the params.yaml of this folder.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", path.stem):
        raise TemperError(f"{path}: expected a name of letters, digits, - and _, for experiments are named after it")
    if not path.exists():
        raise TemperError(f"{path}: no such file; sweeps/ has two, and docs/sweep.md says what may stand in one")
    sweep = loading.validate(Sweep, loading.read(path), str(path))
    space.refuse_wrong_space(sweep, loading.read(PARAMS), f"{path}: params")
    if sweep.sampler == "grid" and sweep.trials is None:
        sweep = sweep.model_copy(update={"trials": len(space.grid(sweep.params))})
    return sweep


def refuse_without_optuna() -> None:
    """Checks that Optuna and matplotlib are installed.

    Raises:
        TemperError: one is missing; the message says how to install it.
    """
    missing = [name for name in ("optuna", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise TemperError(f"expected {' and '.join(missing)} to be installed for a sweep: run make sweep")


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handles a signal like Ctrl-C, so that the search ends its trials before it exits."""
    raise KeyboardInterrupt


def main() -> int:
    """Reads the command line, runs the sweep, and prints its results; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m apps.sweep", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("sweep", type=Path, metavar="SWEEP.yaml")
    parser.add_argument(
        "--storage",
        metavar="ADDRESS",
        help="of a database server, for drivers in several clones, or $NAME of an environment variable that holds it; "
        "instead of storage: in SWEEP.yaml",
    )
    chosen = parser.parse_args()
    refuse_without_optuna()
    sweep = read_sweep(chosen.sweep)
    # SIGTERM, which schedulers send, acts like Ctrl-C. SIGINT needs a handler too: a script starts its background
    # processes with SIGINT ignored, the trials would inherit that, and none could be pruned, which is done by SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    lock = scratch("locks") / f"sweep-{chosen.sweep.stem}.lock"
    with held(lock, f"{chosen.sweep}: waiting for the process that runs this sweep"):
        from apps.sweep.running import search  # noqa: PLC0415 - it imports Optuna

        return search(sweep, chosen.sweep, chosen.storage or sweep.storage)


if __name__ == "__main__":
    run(main)
