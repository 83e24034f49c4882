"""python -m apps.ensemble REVISION REVISION ... [--by average|vote] [--json FILE] [--csv FILE]

Combines the predictions of several experiments, as the stage `evaluate` wrote them; no model runs again. A revision is
a commit, branch, tag or experiment of this repository, or `workspace`. Its predictions come from DVC's cache or remote.
All revisions must have the same classes and the same test images.

Prints the figures of each member and of the ensemble with their 95 % intervals, as `evaluate` measures them, and by how
much the ensemble differs from the best member.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from temper.base.atomic import atomic_file
from temper.base.errors import TemperError
from temper.base.texts import write_csv, write_json
from temper.comparing.ensembles import (
    Measured,
    as_json,
    combine,
    differences,
    differing,
    guesses,
    measure_all,
    print_figures,
    shown,
)
from temper.comparing.revisions import WORKSPACE, Member, read_member
from temper.measures.calibration import Probabilities
from temper.measures.intervals import Interval


def require_same_classes(first: Member, other: Member) -> None:
    """Raises a TemperError that says how the classes of two members differ."""
    if first.classes == other.classes:
        return
    found = differing(first.name, first.classes, other.name, other.classes) or "they stand in another order"
    raise TemperError(f"{first.name} and {other.name}: expected the same classes, received others: {found}")


def aligned(first: Member, other: Member) -> Probabilities:
    """The other member's probabilities, with its test images in the order of the first member's.

    Raises:
        TemperError: the test images differ, or their labels do.
    """
    places = {image_id: row for row, image_id in enumerate(other.test.image_ids)}
    own = dict(zip(first.test.image_ids, first.test.paths, strict=True))
    others = dict(zip(other.test.image_ids, other.test.paths, strict=True))
    pair = f"{first.name} and {other.name}"
    if own.keys() != others.keys():
        only, strange = ([of[one] for one in of if one not in rest] for of, rest in ((own, others), (others, own)))
        found = differing(first.name, only, other.name, strange)
        raise TemperError(
            f"{pair}: expected the same test images, received others: {found}; use the same seed and data"
        )
    rows = [places[image_id] for image_id in first.test.image_ids]
    labels = zip(first.test.class_names, (other.test.class_names[row] for row in rows), first.test.paths, strict=True)
    for label, theirs, path in labels:
        if label != theirs:
            raise TemperError(f"{pair}: expected the same labels, received {label} and {theirs} for {path}")
    reordered: Probabilities = other.test.probabilities[rows]
    return reordered


@dataclass(frozen=True)
class Result:
    """The figures of an ensemble and its members.

    Attributes:
        ensemble: the name of the ensemble in `figures`.
        figures: the figures of each member by its name, and of the ensemble, which comes last.
        best: the member with the highest accuracy on these images; of equal ones, the one with the lower loss.
        gains: the ensemble's figures minus those of `best`.
        test: the ensemble's probabilities for the first member's test images, in its order.
    """

    ensemble: str
    figures: dict[str, Measured]
    best: str
    gains: dict[str, tuple[float, Interval]]
    test: Probabilities


def evaluate(members: Sequence[Member], by: str) -> Result:
    """Measures the members and their ensemble.

    Raises:
        TemperError: they differ in their classes or test images.
    """
    first = members[0]
    for other in members[1:]:
        require_same_classes(first, other)
    of_members = [aligned(first, member) for member in members]
    labels = np.array([first.classes.index(str(name)) for name in first.test.class_names])
    ensemble, name = combine(of_members, by), f"{by} of {len(members)}"
    probabilities = dict(zip([member.name for member in members], of_members, strict=True))
    figures = {of: measure_all(one, labels) for of, one in (probabilities | {name: ensemble}).items()}
    best = min(probabilities, key=lambda of: (-figures[of]["accuracy"][0], figures[of]["loss"][0]))
    return Result(name, figures, best, differences(ensemble, probabilities[best], labels), ensemble)


def print_result(result: Result) -> None:
    """Prints a table of all figures, a column for each model, and the differences from the best member."""
    names = list(result.figures[result.ensemble])
    print_figures(result.figures, names)
    width = max(map(len, names))
    print(f"\n{result.ensemble} minus {result.best}, the most accurate member on these images (95 % intervals):")
    for name, (value, interval) in result.gains.items():
        print(f"{name.ljust(width)}  {shown(value, interval, '+')}")


def write_figures(path: Path, result: Result) -> None:
    """Writes all figures as JSON."""
    models = {name: as_json(figures) for name, figures in result.figures.items()}
    with atomic_file(path) as partial:
        gains = {"minus": result.best, "figures": as_json(result.gains)}
        write_json(partial, {"models": models, "ensemble": result.ensemble, "difference": gains})


def write_predictions(path: Path, members: Sequence[Member], result: Result, by: str) -> None:
    """Writes the ensemble's prediction for each test image, and for unlabelled images if all members have the same."""
    first = members[0]
    parts = [(first.test, result.test, "test")]
    if all(list(member.unlabelled.image_ids) == list(first.unlabelled.image_ids) for member in members):
        of_members = [member.unlabelled.probabilities for member in members]
        if len(first.unlabelled.paths):
            parts.append((first.unlabelled, combine(of_members, by), "unlabelled"))
    else:
        print("the members have not the same unlabelled images: only the test images are written")
    rows = [
        (image, split, actual or "", predicted, f"{share:.4f}")
        for of_split, probabilities, split in parts
        for image, actual, predicted, share in zip(
            of_split.paths,
            of_split.class_names,
            guesses(probabilities, first.classes),
            probabilities.max(axis=1),
            strict=True,
        )
    ]
    with atomic_file(path) as partial:
        write_csv(partial, ["path", "split", "class_name", "predicted", "probability"], rows)


def main() -> None:
    """Reads the command line, and prints and writes the results."""
    parser = argparse.ArgumentParser(prog="python -m apps.ensemble", description=(__doc__ or "").split("\n\n", 1)[1])
    parser.add_argument(
        "revisions", nargs="+", help=f"two or more commits, branches, tags, experiments, or {WORKSPACE}"
    )
    parser.add_argument("--by", choices=["average", "vote"], default="average", help="how they are combined")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    parser.add_argument("--csv", type=Path, help="a file for the predictions of the ensemble")
    chosen = parser.parse_args()
    if len(set(chosen.revisions)) < max(2, len(chosen.revisions)):
        raise TemperError(f"expected two or more different revisions, received {' '.join(chosen.revisions)}")
    members = [read_member(revision) for revision in chosen.revisions]
    result = evaluate(members, chosen.by)
    print_result(result)
    if chosen.json:
        write_figures(chosen.json, result)
    if chosen.csv:
        write_predictions(chosen.csv, members, result, chosen.by)


if __name__ == "__main__":
    try:
        main()
    except (TemperError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
