"""What a person should look at, written to data/audit/: leaks, conflicts, duplicates and near-duplicates."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.normalize.near_duplicates import Pairs
from stages.normalize.splits import Pictures
from temper.base.atomic import atomic_folder
from temper.base.texts import write_csv

MOST_PAIRS = 100_000  # how many pairs a table lists at most; the metrics count all of them

SIDES = (16, 32, 64, 128, 256, 384, 512, 768, 1024, 2048, 4096)


@dataclass(frozen=True)
class Findings:
    """The pairs of images that were found among the labelled rows.

    "Row" is a row number of the raw tables, "position" an index into `labelled`. `leaks`, `conflicts` and `duplicates`
    map a row to the row that it repeats.

    Attributes:
        pictures: the labelled rows, by position, grouped by what they show.
        labelled: the row at each position.
        hashes: the perceptual hash at each position.
        leaks: rows with nearly the same picture as a row of a published validation or test split.
        conflicts: rows with nearly the same picture as a row of another class.
        duplicates: training images with the same bytes as an earlier one of their class.
    """

    pictures: Pictures
    labelled: Sequence[int]
    hashes: npt.NDArray[np.uint64]
    leaks: Mapping[int, int]
    conflicts: Mapping[int, int]
    duplicates: Mapping[int, int]

    def near_pairs(self) -> Pairs:
        """Pairs of positions that show nearly the same picture, int64 (pairs, 2).

        First come images with equal perceptual hashes but different bytes, then those whose hashes differ slightly.
        """
        return np.concatenate([self.pictures.recoded, self.pictures.first_of[self.pictures.pairs]])


def write_audit(
    folder: str,
    raw: pa.Table,
    names: Sequence[str | None],
    splits: Sequence[str | None],
    reasons: Mapping[int, str],
    found: Findings,
) -> None:
    """Writes leaks.csv, conflicts.csv, duplicates.csv and near_duplicates.csv.

    Each row describes a pair: where the two images are, their classes and splits, how many bits of their perceptual
    hashes differ, and whether the first image is used.
    """
    paths, source, part, place = raw["path"], raw["source"], raw["part"].to_numpy(), raw["row"].to_numpy()
    sides = ["path", "class_name", "split", "source", "part", "row"]
    header = ["used", "bits", *sides, *(f"other_{side}" for side in sides)]
    positions = dict(zip(found.labelled, range(len(found.labelled)), strict=True))

    def described(row: int, other: int) -> list[object]:
        bits = int(found.hashes[positions[row]] ^ found.hashes[positions[other]]).bit_count()
        both = [[paths[r], names[r], splits[r], source[r], part[r], place[r]] for r in (row, other)]
        return ["no" if row in reasons else "yes", bits, *both[0], *both[1]]

    with atomic_folder(folder) as partial:
        for name in ("leaks", "conflicts", "duplicates"):
            pairs = sorted(getattr(found, name).items())[:MOST_PAIRS]
            write_csv(partial / f"{name}.csv", header, (described(*pair) for pair in pairs))
        near = found.near_pairs()[:MOST_PAIRS].tolist()
        rows = (described(found.labelled[left], found.labelled[right]) for left, right in near)
        write_csv(partial / "near_duplicates.csv", header, rows)


def shorter_sides(raw: pa.Table) -> list[tuple[str, int]]:
    """A histogram of the images' shorter sides: (range of pixels such as "128-255", number of images)."""
    shorter = np.minimum(raw["width"].to_numpy(), raw["height"].to_numpy())
    counts = Counter(np.searchsorted(SIDES, shorter, side="right").tolist())
    edges = [1, *SIDES]
    labels = [f"{low}-{high - 1}" for low, high in zip(edges, SIDES, strict=False)] + [f"{SIDES[-1]}-"]
    return [(label, counts[number]) for number, label in enumerate(labels) if counts[number]]
