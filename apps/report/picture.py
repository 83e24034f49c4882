"""Draws the photos on which two models disagree, on one sheet."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apps.report.pairing import Pairing
from temper.comparing.paired import is_right
from temper.comparing.revisions import Revision
from temper.packs import Pack
from temper.sheets import write_sheet

PACKED = "data/packed/test"
MOST, ACROSS, CELL = 40, 5, 160  # photos at most, photos per row, side of a photo in pixels
KINDS = ("newly wrong", "newly right", "wrong otherwise")


@dataclass(frozen=True)
class Disagreement:
    """An image to which the two models give different classes.

    Attributes:
        row: the image's row in the pairing.
        kind: one of KINDS.
        sure: the new model's probability of the class that it predicts.
    """

    row: int
    kind: str
    sure: float


def disagreements(found: Pairing) -> list[Disagreement]:
    """The images on which the two models disagree, by kind (newly wrong first), the most confident of a kind first."""
    if not len(found.labels):
        return []
    right = is_right(found.old, found.labels), is_right(found.new, found.labels)
    rows = np.flatnonzero(found.old.argmax(axis=1) != found.new.argmax(axis=1)).tolist()
    every = [
        Disagreement(row, KINDS[0 if right[0][row] else 1 if right[1][row] else 2], float(found.new[row].max()))
        for row in rows
    ]
    return sorted(every, key=lambda one: (KINDS.index(one.kind), -one.sure, one.row))


def chosen(every: list[Disagreement], most: int = MOST) -> list[Disagreement]:
    """At most `most` disagreements: the first of each kind, up to a quarter of `most` each, filled up in order."""
    of_kinds = [[one for one in every if one.kind == kind] for kind in KINDS]
    kept = [one for some in of_kinds for one in some[: most // 4]]
    kept += [one for some in of_kinds for one in some[most // 4 :]][: most - len(kept)]
    return sorted(kept, key=every.index)


def write(path: Path, found: Pairing, new: Revision) -> int:
    """Writes a PNG of the images on which the models disagree, as the new revision packed them.

    Returns:
        How many images it shows. If there are none, no file is written.

    Raises:
        TemperError: the packed images of the new revision are not available.
    """
    shown = chosen(disagreements(found))
    if not shown:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        pack = Pack(new.get(PACKED, Path(folder)))
        strips = list(_strips(found, shown, pack))
        write_sheet(path, strips, per_strip=1, across=ACROSS, cell=CELL)
    return len(strips)


def _strips(found: Pairing, shown: list[Disagreement], pack: Pack) -> Iterator[tuple[str, list[np.ndarray]]]:
    place = {image_id: number for number, image_id in enumerate(pack.image_ids.tolist())}
    for one in shown:
        number = place.get(found.image_ids[one.row])
        if number is not None:
            before, after = found.guess(found.old, one.row), found.guess(found.new, one.row)
            said = {
                KINDS[0]: f"taken for {after} ({one.sure:.2f})",
                KINDS[1]: f"was taken for {before}",
                KINDS[2]: f"taken for {after} ({one.sure:.2f}), before for {before}",
            }[one.kind]
            yield f"{one.kind}: {found.actual(one.row)}, {said}", [np.array(pack.image(number))]
