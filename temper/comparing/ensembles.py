"""What several models say together, how good they are beside it, and how such figures are shown and written.

Probabilities are (N, classes), one row an image, in the same order of images and of classes for all models.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from temper.comparing import paired
from temper.measures.calibration import Labels, Probabilities
from temper.measures.intervals import Interval, intervals
from temper.measures.metrics import measure

TIES = 1e-3  # what the mean probability weighs beside the votes: it decides between equal numbers of them
SHOWN = 3  # of what differs, in a message

Measured = dict[str, tuple[float, Interval | None]]  # by the name of the figure


def guesses(probabilities: Probabilities, names: Sequence[str]) -> list[str]:
    """The most probable class of each image."""
    return [names[number] for number in probabilities.argmax(axis=1)]


def differing(name: str, own: Sequence[str], other: str, theirs: Sequence[str]) -> str:
    """What only one of two lists has; empty where they have the same."""
    parts = []
    for of, these, those in ((name, own, set(theirs)), (other, theirs, set(own))):
        only = [one for one in these if one not in those]
        if only:
            more = ", ..." if len(only) > SHOWN else ""
            parts.append(f"{len(only)} only in {of} ({', '.join(only[:SHOWN])}{more})")
    return ", ".join(parts)


def combine(members: Sequence[Probabilities], by: str) -> Probabilities:
    """The probabilities of several models, (N, classes) each, in one.

    Args:
        by: "average": their mean. "vote": the share of the models that take an image for the class; between as many
            votes, the mean decides, which weighs `TIES`.
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

    Both are measured on the same images, so what makes an image hard for both does not count.
    """
    found = paired.differences(member, ensemble, labels)
    return {name: (found[name].value, found[name].interval) for name in ("accuracy", "loss", "macro_f1")}


def shown(value: float, interval: Interval | None, sign: str = "") -> str:
    """A figure with its interval, for people."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:{sign}.4f}" + (f" ({interval[0]:{sign}.4f} to {interval[1]:{sign}.4f})" if interval else "")


def print_figures(figures: Mapping[str, Measured], names: Sequence[str]) -> None:
    """Prints a table of the figures `names`, a column a model; a cell is empty where a model lacks one."""
    rows = [["", *figures]]
    for name in names:
        rows.append([name, *(shown(*of[name]) if name in of else "" for of in figures.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def as_json(figures: Mapping[str, tuple[float, Interval | None]]) -> dict[str, dict[str, float]]:
    """Figures for a file: each with its value and the bounds of its interval, where it has one."""
    return {
        name: {"value": value} | ({"low": round(interval[0], 6), "high": round(interval[1], 6)} if interval else {})
        for name, (value, interval) in figures.items()
    }
