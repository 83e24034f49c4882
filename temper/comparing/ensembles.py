"""Ensembles: combines the predictions of several models, measures the result, and prints and writes the figures.

Probabilities are (N, classes), one row per image, with the same order of images and classes for all models.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from temper.comparing import paired
from temper.measures.calibration import Labels, Probabilities
from temper.measures.intervals import Interval, intervals
from temper.measures.metrics import measure

TIES = 1e-3  # the weight of the mean probability relative to one vote, so that it only breaks ties
SHOWN = 3  # the number of differing names that a message lists

Measured = dict[str, tuple[float, Interval | None]]  # by the name of the figure


def guesses(probabilities: Probabilities, names: Sequence[str]) -> list[str]:
    """The most probable class of each image."""
    return [names[number] for number in probabilities.argmax(axis=1)]


def differing(name: str, own: Sequence[str], other: str, theirs: Sequence[str]) -> str:
    """Says in words what only one of two lists has; empty if they have the same."""
    parts = []
    for of, these, those in ((name, own, set(theirs)), (other, theirs, set(own))):
        only = [one for one in these if one not in those]
        if only:
            more = ", ..." if len(only) > SHOWN else ""
            parts.append(f"{len(only)} only in {of} ({', '.join(only[:SHOWN])}{more})")
    return ", ".join(parts)


def combine(members: Sequence[Probabilities], by: str) -> Probabilities:
    """Combines the probabilities of several models, each (N, classes), into one array.

    Args:
        by: "average": their mean. "vote": the share of the models that predict the class; ties are broken by the mean,
            which has the weight `TIES`.
    """
    mean: Probabilities = np.asarray(np.mean(members, axis=0, dtype=np.float64))
    if by == "average":
        return mean
    votes = sum(np.eye(mean.shape[1])[of.argmax(axis=1)] for of in members)
    shares: Probabilities = (votes + TIES * mean) / (len(members) + TIES)
    return shares


def measure_all(probabilities: Probabilities, labels: Labels) -> Measured:
    """The figures that `evaluate` writes, with their 95 % intervals."""
    found = intervals(probabilities, labels)
    return {name: (value, found.get(name)) for name, value in measure(probabilities, labels).items()}


def differences(ensemble: Probabilities, member: Probabilities, labels: Labels) -> dict[str, tuple[float, Interval]]:
    """Accuracy, macro F1 and loss of the ensemble minus those of a member, with 95 % intervals (`paired.differences`).

    Both are measured on the same images, so images that are hard for both do not widen the interval.
    """
    found = paired.differences(member, ensemble, labels)
    return {name: (found[name].value, found[name].interval) for name in ("accuracy", "loss", "macro_f1")}


def shown(value: float, interval: Interval | None, sign: str = "") -> str:
    """A figure with its interval, as text for people."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:{sign}.4f}" + (f" ({interval[0]:{sign}.4f} to {interval[1]:{sign}.4f})" if interval else "")


def print_figures(figures: Mapping[str, Measured], names: Sequence[str]) -> None:
    """Prints a table of the figures `names` with a column for each model; a figure that a model lacks is left empty."""
    rows = [["", *figures]]
    for name in names:
        rows.append([name, *(shown(*of[name]) if name in of else "" for of in figures.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def as_json(figures: Mapping[str, tuple[float, Interval | None]]) -> dict[str, dict[str, float]]:
    """Figures for a JSON file: each with its value and, if it has an interval, its bounds."""
    return {
        name: {"value": value} | ({"low": round(interval[0], 6), "high": round(interval[1], 6)} if interval else {})
        for name, (value, interval) in figures.items()
    }
