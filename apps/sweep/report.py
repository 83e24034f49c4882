"""The report of a sweep: a table of its trials, importances, pictures, and the command that applies the best trial."""

import json
import re
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from apps.sweep import networks, space
from apps.sweep.search import ENDED, OTHER, Search, folder_of
from temper.base.atomic import atomic_file
from temper.base.texts import write_csv

_SHOWN, _WIDTH = 10, 60  # the most rows, and characters in a cell, of the table on the terminal
_ALONG = 40  # characters that fit side by side below a picture
STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def write(search: Search, seeds: dict[str, float]) -> None:
    """Prints the results of a sweep, and writes trials.csv and the pictures into its folder.

    Args:
        seeds: the objective of the best trial with other seeds, by seed.
    """
    folder = folder_of(search.study.study_name)
    swept = {key.split(".")[0] for key in search.sweep.params}
    complete = search.trials(TrialState.COMPLETE)
    costs = networks.measure_all(search.study, complete) if swept & {"backbone", "image_size"} else {}
    header, rows = table(search, costs)
    drawn = keep(search, costs)
    print()
    fixed = {key for key in search.sweep.params if key not in space.varied(search.sweep.params)}
    kept = [number for number, name in enumerate(header) if name not in fixed | {"reason"}]
    print("\n".join(aligned([[shortened(row[number]) for number in kept] for row in [header, *rows[:_SHOWN]]])))
    if len(rows) > _SHOWN:
        print(f"... {folder / 'trials.csv'} has all {len(rows)}")
    print()
    for line in summary(search, seeds):
        print(line)
    print(f"pictures: {', '.join(str(path) for path in drawn)}" if drawn else "too few trials for pictures")


def keep(search: Search, costs: dict[int, dict[str, float]] | None = None) -> list[Path]:
    """Writes trials.csv and the pictures, also while a search goes on; returns the paths of the pictures."""
    folder = folder_of(search.study.study_name)
    with atomic_file(folder / "trials.csv") as path:
        write_csv(path, *table(search, costs or {}))
    return draw(search.study, search.trials(TrialState.COMPLETE), compared(search), folder)


def table(search: Search, costs: dict[int, dict[str, float]]) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table: finished trials, the best first, then pruned and failed ones.

    Args:
        costs: what the backbone of a trial costs, by the trial's number.
    """
    keys = list(search.sweep.params)
    measured = list(next(iter(costs.values()), {}))
    others = list(next((one.user_attrs[OTHER] for one in search.trials() if one.user_attrs.get(OTHER)), {}))
    header = ["experiment", search.aim.name, *others, "state", "epochs", *keys, *measured, "stages that ran", "reason"]
    rows = []
    for trial in in_order(search):
        values = json.loads(trial.user_attrs.get("values", "{}"))
        rows.append(
            [
                trial.user_attrs.get("experiment", str(trial.number)),
                "" if trial.value is None else f"{trial.value:.5g}",
                *(f"{trial.user_attrs[OTHER][name]:.5g}" if trial.user_attrs.get(OTHER) else "" for name in others),
                STATES[trial.state],
                str(len(trial.intermediate_values) or ""),
                *(space.shown(values[key]) if key in values else "" for key in keys),
                *(f"{costs[trial.number][name]:g}" if trial.number in costs else "" for name in measured),
                " ".join(trial.user_attrs.get("ran", [])),
                trial.user_attrs.get("reason", ""),
            ]
        )
    return header, rows


def in_order(search: Search) -> list[FrozenTrial]:
    """The finished trials, the best first, then the pruned and the failed ones."""
    sign = -1 if search.aim.maximize else 1
    return sorted(
        search.trials(*ENDED),
        key=lambda one: (ENDED.index(one.state), sign * (one.value if one.value is not None else 0), one.number),
    )


def shortened(cell: str) -> str:
    """The text of a cell, cut to the width that the terminal has for it."""
    return cell if len(cell) <= _WIDTH else f"{cell[: _WIDTH - 3]}..."


def aligned(rows: list[list[str]]) -> list[str]:
    """A table as lines of text, without empty columns. The first row is the header."""
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def summary(search: Search, seeds: dict[str, float]) -> list[str]:
    """The lines below the table: counts, importances, the best trial, and how to apply it."""
    best, ended = search.best(), search.trials(*ENDED)
    states = Counter(trial.state for trial in ended)
    lines = [
        f"{len(ended)} trials: {states[TrialState.COMPLETE]} finished, {states[TrialState.PRUNED]} pruned, "
        f"{states[TrialState.FAIL]} failed"
    ]
    ran = Counter(re.sub("@.*", "", stage) for trial in ended for stage in trial.user_attrs.get("ran", []))
    lines.append(f"stages that ran: {', '.join(f'{stage} {count}' for stage, count in ran.items()) or 'none'}")
    if best is None:
        return [*lines, "no trial has finished, so there is no best"]
    lines += importances(search.study, compared(search))
    values = space.in_words(json.loads(best.user_attrs["values"]), search.sweep.params)
    lines.append(f"best: {best.user_attrs['experiment']}, {search.aim.name} {best.value:.5g} ({values})")
    if seeds:
        of_seeds = sorted(seeds.values())
        lines.append(
            f"the same with {len(seeds)} other seeds, so other splits too: {of_seeds[0]:.5g} to {of_seeds[-1]:.5g}, "
            f"mean {mean(of_seeds):.5g}: expect that, for the best of {len(ended)} is partly luck"
        )
    name, owner = best.user_attrs["experiment"], best.user_attrs.get("driver", "")
    if owner not in ("", search.drivers.name):
        place = search.study.user_attrs.get(f"folder of {owner}", "its clone")
        lines.append(
            f"it is in the clone of {owner}, {place}: there, type dvc exp push origin {name}, and here, dvc exp pull "
            f"origin {name}"
        )
    lines.append(f"apply it: dvc exp apply {name} && dvc repro")
    return lines


def compared(search: Search) -> list[str]:
    """The keys of params that every finished trial has, and that differ between them."""
    found = [trial.params for trial in search.trials(TrialState.COMPLETE)]
    keys = [key for key in space.varied(search.sweep.params) if all(key in params for params in found)]
    return [key for key in keys if len({str(params[key]) for params in found}) > 1]


def importances(study: optuna.Study, keys: list[str]) -> list[str]:
    """A line with the share of the differences between trials that each param explains; empty if it cannot be told."""
    if len(keys) < 2:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(study, params=keys, evaluator=_evaluator())
    except (ValueError, RuntimeError):  # all trials are equal
        return []
    shown = ", ".join(f"{key} {share:.2f}" for key, share in found.items())
    return [f"importance: {shown}"]


def _evaluator() -> optuna.importance.BaseImportanceEvaluator:
    """fANOVA (Hutter, Hoos and Leyton-Brown, ICML 2014): the share of the variance over all trials.

    Optuna's default, PED-ANOVA, asks what distinguishes the best tenth of the trials. If most learning rates fail, it
    gives the learning rate a small share, because all of the best trials have a good one.
    """
    return optuna.importance.FanovaImportanceEvaluator(seed=0)


def draw(study: optuna.Study, complete: list[FrozenTrial], keys: list[str], folder: Path) -> list[Path]:
    """Draws Optuna's plots: progress, curves, importances and a slice per param; returns the paths of the files."""
    if len(complete) < 2:
        return []
    import matplotlib  # noqa: PLC0415

    matplotlib.use("Agg")
    from optuna.visualization import matplotlib as plots  # noqa: PLC0415

    kinds: dict[str, Callable[[optuna.Study], Any]] = {"progress": plots.plot_optimization_history}
    if any(trial.intermediate_values for trial in complete):
        kinds["curves"] = plots.plot_intermediate_values
    if len(keys) > 1:
        kinds["importances"] = partial(plots.plot_param_importances, params=keys, evaluator=_evaluator())
    if keys:
        kinds["slices"] = partial(plots.plot_slice, params=keys)
    return [path for name, plot in kinds.items() if (path := _drawn(plot, study, folder / f"{name}.png")) is not None]


def _drawn(plot: Callable[[optuna.Study], Any], study: optuna.Study, path: Path) -> Path | None:
    """Draws a picture into a file; returns `None` if Optuna has too little data to draw."""
    from matplotlib import pyplot  # noqa: PLC0415

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna warns that its matplotlib plots are experimental
            plot(study)
            for axes in pyplot.gcf().axes:
                _label(axes)
            with atomic_file(path) as partial:
                pyplot.gcf().savefig(partial, dpi=120, bbox_inches="tight")
    except (ValueError, RuntimeError):
        return None
    finally:
        pyplot.close("all")
    return path


def _label(axes: Any) -> None:
    """Labels listed values on the x-axis as in the table, and slants the labels if they would overlap."""
    names = [label.get_text() for label in axes.get_xticklabels()]
    if not any(name.startswith("'") for name in names):  # numbers
        return
    names = [_named(name.strip("'")) for name in names]
    slant = {"rotation": 30, "ha": "right"} if sum(map(len, names)) > _ALONG else {}
    axes.set_xticks(axes.get_xticks(), names, **slant)


def _named(stored: str) -> str:
    """A value as text for people, from Optuna's form, in which lists and mappings are JSON."""
    try:
        return space.shown(json.loads(stored)) if stored[:1] in "[{" else stored
    except ValueError:
        return stored
