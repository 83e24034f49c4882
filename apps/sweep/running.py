"""Runs a sweep from start to report, as the only driver or as one of several."""

import sys
from pathlib import Path

import optuna

from apps.sweep import report
from apps.sweep.comparable import identity, refuse_another, refuse_edits, refuse_stages_before
from apps.sweep.drivers import Alone, Team, Turns, address, own_name, unanswered
from apps.sweep.repetition import repeat_best
from apps.sweep.search import Search, folder_of, open_study
from apps.sweep.settings import Sweep
from temper.base import loading
from temper.base.loading import PARAMS


def search(sweep: Sweep, path: Path, storage: str | None) -> int:
    """Runs or continues a sweep, repeats its best trial with other seeds, and writes the report.

    Args:
        storage: the database server that has the study, for several drivers; `None`: a local SQLite file, for one.

    Returns:
        The exit code: 0, or 130 after Ctrl-C.
    """
    if storage is None:
        return go_on(sweep, path, open_study(path.stem, sweep), Alone())
    turns = Turns(address(storage, str(path)))
    try:
        study = open_study(path.stem, sweep, turns.storage, turns.turn())
        with Team(study, own_name(folder_of(path.stem)), turns) as team:
            return go_on(sweep, path, study, team)
    except Team.lost as error:
        raise unanswered(error) from None


def go_on(sweep: Sweep, path: Path, study: optuna.Study, drivers: Alone) -> int:
    """Checks that the study may continue, then runs what is left of it; returns the exit code as `search` does."""
    with drivers.turn():
        refuse_another(study, identity(sweep), path)
    refuse_stages_before(sweep, path)
    base = loading.read(PARAMS)
    one = Search(sweep, study, base, f"{path}: params", lambda: refuse_edits(study, sweep, path), drivers, report.keep)
    mine = f"; this driver is {drivers.name}" if drivers.name else ""
    print(
        f"{path}: {sweep.trials} trials by {sweep.aim.name}, {len(one.trials())} of them begun; study, logs and "
        f"pictures are in {folder_of(path.stem)}{mine}",
        flush=True,
    )
    try:
        one.run()
        report.write(one, repeat_best(one))
    except KeyboardInterrupt:
        print(f"interrupted: python -m apps.sweep {path} goes on", file=sys.stderr)
        return 130
    return 0
