"""Which split each image belongs to, whatever images are added later.

A published validation or test split is kept. Every other image is placed by a hash of its own content and the seed, so
added images never move it. If two images show nearly the same picture and were drawn into different splits, only the
one in the later split (train, validation, test) may be used: no picture both trains and tests the model.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.normalize.near_duplicates import Pairs, near_pairs

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]  # (N,)


@dataclass(frozen=True)
class Shares:
    """The shares of the images that are drawn to validate and to test; the others train."""

    validation: float
    test: float


@dataclass(frozen=True)
class Pictures:
    """Rows grouped by content, and which groups are nearly the same picture.

    Attributes:
        contents: of each row, what its split is drawn by: its bytes' hash, or its perceptual hash.
        group_of: of each row, its group of equal contents.
        first_of: of each group, its first row.
        pairs: of groups.
        recoded: pairs of rows of one group whose bytes differ, the group's first row before each other.
    """

    contents: list[str]
    group_of: Integers
    first_of: Integers
    pairs: Pairs
    recoded: Pairs


def group(sha256: list[str], hashes: npt.NDArray[np.uint64], distance: int | None) -> Pictures:
    """Groups rows by what they show.

    Args:
        hashes: perceptual hashes, uint64 (N,).
        distance: how many bits of two hashes may differ in nearly the same picture; `None`: only equal bytes count.
    """
    none = np.empty((0, 2), np.int64)
    if distance is None:
        _, first, group_of = np.unique(np.asarray(sha256, "S64"), return_index=True, return_inverse=True)
        return Pictures(sha256, group_of, first, none, none)
    unique, first, group_of = np.unique(hashes, return_index=True, return_inverse=True)
    shared = np.flatnonzero(np.bincount(group_of, minlength=len(first))[group_of] > 1)
    seen = {sha256[row] for row in first[group_of[shared]].tolist()}
    recoded = []
    for row in shared.tolist():  # each bytes once
        if sha256[row] not in seen:
            seen.add(sha256[row])
            recoded.append((first[group_of[row]], row))
    pairs = near_pairs(unique, distance)
    return Pictures(list(map(str, hashes.tolist())), group_of, first, pairs, np.array(recoded or none, np.int64))


@dataclass(frozen=True)
class Placement:
    """Where every row goes.

    Attributes:
        splits: for each row.
        repeats: rows that may not be used, because a row of another split that may is nearly the same; with that row.
        leaks: rows that a row of a published validation or test split nearly repeats; with that row.
    """

    splits: list[str]
    repeats: dict[int, int]
    leaks: dict[int, int]


def hashed_split(content: str, seed: int, shares: Shares) -> str:
    """The split of an image alone: a uniform number from its content and the seed, cut by the shares.

    The test images are those with the lowest numbers, the validation images those with the highest: neither
    share moves the other.
    """
    number = uniform(f"{seed}:{content}")
    if number < shares.test:
        return "test"
    return "validation" if number >= 1 - shares.validation else "train"


def uniform(text: str) -> float:
    """A number in [0, 1) that `text` alone decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def hashed_splits(pictures: Pictures, drawable: Mask, shares: Shares, seed: int) -> npt.NDArray[np.str_]:
    """The hash draw of each drawable row; train for all others, (N,)."""
    return np.array(
        [
            hashed_split(content, seed, shares) if is_drawable else "train"
            for content, is_drawable in zip(pictures.contents, drawable.tolist(), strict=True)
        ],
        "U10",
    )


def place(
    pictures: Pictures, splits: npt.NDArray[np.str_], fixed: Mask, extra: Mask, remove_leaks: bool = False
) -> Placement:
    """Finds the rows that repeat one of another split.

    Args:
        splits: of each row, published or drawn, (N,).
        fixed: rows of a published validation or test split.
        extra: rows of sources that only train, unless another split repeats them.
        remove_leaks: whether rows that leak are out, and so repeat no other row.
    """
    leaks = _leaks(splits, fixed, extra, pictures)
    gone = np.zeros(len(splits), bool)
    if remove_leaks:
        gone[[row for row in leaks if not fixed[row]]] = True
    return Placement(splits.tolist(), _repeats(splits, fixed, extra, gone, pictures), leaks)


def _leaks(splits: npt.NDArray[np.str_], fixed: Mask, extra: Mask, pictures: Pictures) -> dict[int, int]:
    """Drawn rows near one of another, published split, and published validation rows near a published test row."""
    leaks: dict[int, int] = {}
    for split in ("validation", "test"):
        there = fixed & (splits == split)
        here = ~extra & (splits != split) & (~fixed | (split == "test"))
        leaks |= _near(here, there, pictures)  # near both: test counts
    return leaks


def _repeats(splits: npt.NDArray[np.str_], fixed: Mask, extra: Mask, gone: Mask, pictures: Pictures) -> dict[int, int]:
    """Drawn rows near a drawn row of a later split that stays, and extra rows near any that does not train."""
    repeats: dict[int, int] = {}
    drawn = ~fixed & ~extra
    for split, later in (("validation", ["test"]), ("train", ["validation", "test"])):
        found = _near(drawn & ~gone & (splits == split), drawn & ~gone & np.isin(splits, later), pictures)
        gone = gone.copy()
        gone[list(found)] = True
        repeats |= found
    return repeats | _near(extra, ~extra & ~gone & (splits != "train"), pictures)


def _near(here: Mask, there: Mask, pictures: Pictures) -> dict[int, int]:
    """Of each row `here` that is nearly the same picture as one `there`, the first such row."""
    rows = np.arange(len(here))
    if not (here.any() and there.any()):
        return {}
    _, first = extremes(np.where(there, rows, len(rows)), pictures)
    twin = first[pictures.group_of]
    found = np.flatnonzero(here & (twin < len(rows)))
    return dict(zip(found.tolist(), twin[found].tolist(), strict=True))


def extremes(values: Integers, pictures: Pictures) -> tuple[Integers, Integers]:
    """The largest and the smallest of the rows' `values` in each group and the groups near it."""
    limits = np.iinfo(np.int64)
    largest = np.full(len(pictures.first_of), limits.min)
    smallest = np.full(len(pictures.first_of), limits.max)
    np.maximum.at(largest, pictures.group_of, values)
    np.minimum.at(smallest, pictures.group_of, values)
    own_largest, own_smallest = largest.copy(), smallest.copy()
    for here, there in (pictures.pairs.T, pictures.pairs.T[::-1]):
        np.maximum.at(largest, here, own_largest[there])
        np.minimum.at(smallest, here, own_smallest[there])
    return largest, smallest


def conflicts(classes: Integers, among: Mask, pictures: Pictures) -> dict[int, int]:
    """For each row `among` those given that nearly shows a picture of another class among them, one such row.

    Args:
        classes: the number of each row's class, (N,).
    """
    rows = np.arange(len(classes))
    if not among.any():
        return {}
    values = classes * len(rows) + rows
    low, high = np.where(among, values, np.iinfo(np.int64).max), np.where(among, values, -1)
    largest, smallest = extremes(high, pictures)[0][pictures.group_of], extremes(low, pictures)[1][pictures.group_of]
    twin = np.where(largest // len(rows) != classes, largest % len(rows), smallest % len(rows))
    differs = among & (classes[twin] != classes)
    return dict(zip(rows[differs].tolist(), twin[differs].tolist(), strict=True))
