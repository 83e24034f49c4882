"""python -m apps.sweep SWEEP.yaml: searches params, each trial a DVC experiment in a copy of the repository.

What is cached is not computed again: a sweep over `lr` runs nothing before `fine_tune`. Interrupted or killed, it goes
on when it is started again, and repeats no trial that has finished. Study, logs and pictures: .temper/sweeps/NAME.
"""

import argparse
import importlib.util
import re
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from apps.sweep import space
from apps.sweep.settings import Sweep
from temper.base import loading
from temper.base.errors import TemperError
from temper.base.loading import PARAMS
from temper.base.locks import held
from temper.base.paths import scratch
from temper.command_line import run

if TYPE_CHECKING:
    import optuna

    from apps.sweep.drivers import Alone


def read_sweep(path: Path) -> Sweep:
    """A SWEEP.yaml, validated.

    Raises:
        TemperError: it is wrong, by itself or for the params.yaml that is here.
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
    """Says how to install what a search needs.

    Raises:
        TemperError: it is not there.
    """
    missing = [name for name in ("optuna", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise TemperError(f"expected {' and '.join(missing)} to be installed for a sweep: make sweep does it")


def interrupt(number: int, frame: FrameType | None) -> None:
    """Ends the search in an orderly way."""
    raise KeyboardInterrupt


def main() -> int:
    """Reads the command line, searches, and says what came out."""
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
    # A scheduler's SIGTERM as Ctrl-C; and Ctrl-C also in the background of a script, where it is ignored and what is
    # started from there would ignore it too, so that no trial could be pruned.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    lock = scratch("locks") / f"sweep-{chosen.sweep.stem}.lock"
    with held(lock, f"{chosen.sweep}: waiting for the process that runs this sweep"):
        return search(sweep, chosen.sweep, chosen.storage or sweep.storage)


def search(sweep: Sweep, path: Path, storage: str | None) -> int:
    """Searches to the end, and repeats the best; with other drivers where a server keeps the study."""
    from apps.sweep.drivers import Alone, Team, Turns, address, own_name  # noqa: PLC0415
    from apps.sweep.search import folder_of, open_study  # noqa: PLC0415

    if storage is None:
        return go_on(sweep, path, open_study(path.stem, sweep), Alone())
    turns = Turns(address(storage, str(path)))
    study = open_study(path.stem, sweep, turns.storage, turns.turn())
    with Team(study, own_name(folder_of(path.stem)), turns) as team:
        return go_on(sweep, path, study, team)


def go_on(sweep: Sweep, path: Path, study: "optuna.Study", drivers: "Alone") -> int:
    """Does what is left of a study."""
    from apps.sweep import report  # noqa: PLC0415
    from apps.sweep.comparable import identity, refuse_another, refuse_edits, refuse_stages_before  # noqa: PLC0415
    from apps.sweep.repetition import repeat_best  # noqa: PLC0415
    from apps.sweep.search import Search, folder_of  # noqa: PLC0415

    with drivers.turn():
        refuse_another(study, identity(sweep), path)
    refuse_stages_before(sweep, path)
    base = loading.read(PARAMS)
    one = Search(sweep, study, base, f"{path}: params", lambda: refuse_edits(study, sweep, path), drivers, report.keep)
    known = len(one.trials())
    mine = f"; this driver is {drivers.name}" if drivers.name else ""
    print(
        f"{path}: {sweep.trials} trials by {sweep.aim.name}, {known} of them begun; study, logs and pictures are in "
        f"{folder_of(path.stem)}{mine}",
        flush=True,
    )
    try:
        one.run()
        report.write(one, repeat_best(one))
    except drivers.lost as error:
        raise TemperError(f"{drivers.said(error)}; python -m apps.sweep {path} goes on") from None
    except KeyboardInterrupt:
        print(f"interrupted: python -m apps.sweep {path} goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    run(main)
