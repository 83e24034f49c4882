"""Assigns each image to a split in a way that does not change when images are added later.

A published validation or test split is kept. The split of every other image follows from a hash of its own content and
the seed, so adding images never moves it. If two images show nearly the same picture but were drawn into different
splits, only the one in the later split (in the order train, validation, test) is used. So no picture both trains and
tests the model.
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
    """The shares of the images that are drawn for validation and for test, 0 to 1; the others train."""

    validation: float
    test: float


@dataclass(frozen=True)
class Pictures:
    """Rows grouped by content, and the pairs of groups that show nearly the same picture.

    Attributes:
        contents: the hash of each row that decides its split: its perceptual hash, or the SHA-256 of its bytes.
        group_of: the group of each row, int64 (N,); rows of a group have equal contents.
        first_of: the first row of each group, int64 (groups,).
        pairs: pairs of groups that show nearly the same picture, int64 (pairs, 2).
        recoded: pairs of rows of the same group with different bytes, int64 (pairs, 2): the group's first row and
            another one. Each different file appears once.
    """

    contents: list[str]
    group_of: Integers
    first_of: Integers
    pairs: Pairs
    recoded: Pairs


def group(sha256: list[str], hashes: npt.NDArray[np.uint64], distance: int | None) -> Pictures:
    """Groups rows by what they show.

    Args:
        sha256: the checksum of each row's bytes.
        hashes: perceptual hashes, uint64 (N,).
        distance: the largest number of bits in which the hashes of nearly the same picture differ; `None`: only equal
            bytes count as the same picture.
    """
    none = np.empty((0, 2), np.int64)
    if distance is None:
        _, first, group_of = np.unique(np.asarray(sha256, "S64"), return_index=True, return_inverse=True)
        return Pictures(sha256, group_of, first, none, none)
    unique, first, group_of = np.unique(hashes, return_index=True, return_inverse=True)
    shared = np.flatnonzero(np.bincount(group_of, minlength=len(first))[group_of] > 1)
    seen = {sha256[row] for row in first[group_of[shared]].tolist()}
    recoded = []
    for row in shared.tolist():  # rows with the same bytes only once
        if sha256[row] not in seen:
            seen.add(sha256[row])
            recoded.append((first[group_of[row]], row))
    pairs = near_pairs(unique, distance)
    return Pictures(list(map(str, hashes.tolist())), group_of, first, pairs, np.array(recoded or none, np.int64))


@dataclass(frozen=True)
class Placement:
    """The split of every row, and the rows that repeat a picture of another split.

    Attributes:
        splits: the split of each row.
        repeats: rows that must not be used because nearly the same picture is used in another split: row -> that row.
        leaks: rows that show nearly the same picture as a row of a published validation or test split: row -> that row.
    """

    splits: list[str]
    repeats: dict[int, int]
    leaks: dict[int, int]


def hashed_split(content: str, seed: int, shares: Shares) -> str:
    """The split of an image, from a uniform number that is computed from its content and the seed.

    The lowest numbers are test images and the highest are validation images, so changing one share moves no image in or
    out of the other split.
    """
    number = uniform(f"{seed}:{content}")
    if number < shares.test:
        return "test"
    return "validation" if number >= 1 - shares.validation else "train"


def uniform(text: str) -> float:
    """A number in [0, 1), uniformly distributed over texts, that depends on `text` alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def hashed_splits(pictures: Pictures, drawable: Mask, shares: Shares, seed: int) -> npt.NDArray[np.str_]:
    """The split of each drawable row by its hash, and "train" for all other rows, (N,)."""
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
    """Finds the rows that repeat a picture of another split.

    Args:
        splits: the split of each row, published or drawn, (N,).
        fixed: rows of a published validation or test split, (N,).
        extra: rows of sources that only train, (N,).
        remove_leaks: whether leaking rows are removed. Other rows are then not rejected for repeating them.
    """
    leaks = _leaks(splits, fixed, extra, pictures)
    gone = np.zeros(len(splits), bool)
    if remove_leaks:
        gone[[row for row in leaks if not fixed[row]]] = True
    return Placement(splits.tolist(), _repeats(splits, fixed, extra, gone, pictures), leaks)


def _leaks(splits: npt.NDArray[np.str_], fixed: Mask, extra: Mask, pictures: Pictures) -> dict[int, int]:
    """Drawn rows near a row of another, published split, and published validation rows near a published test row.

    A row near both validation and test counts as a leak of test.
    """
    leaks: dict[int, int] = {}
    for split in ("validation", "test"):
        there = fixed & (splits == split)
        here = ~extra & (splits != split) & (~fixed | (split == "test"))
        leaks |= _near(here, there, pictures)  # test comes second and overrides validation
    return leaks


def _repeats(splits: npt.NDArray[np.str_], fixed: Mask, extra: Mask, gone: Mask, pictures: Pictures) -> dict[int, int]:
    """Drawn rows near a used drawn row of a later split, and extra rows near any used validation or test row."""
    repeats: dict[int, int] = {}
    drawn = ~fixed & ~extra
    for split, later in (("validation", ["test"]), ("train", ["validation", "test"])):
        found = _near(drawn & ~gone & (splits == split), drawn & ~gone & np.isin(splits, later), pictures)
        gone = gone.copy()
        gone[list(found)] = True
        repeats |= found
    return repeats | _near(extra, ~extra & ~gone & (splits != "train"), pictures)


def _near(here: Mask, there: Mask, pictures: Pictures) -> dict[int, int]:
    """For each row of `here` with nearly the same picture as a row of `there`: its row -> the first such row."""
    rows = np.arange(len(here))
    if not (here.any() and there.any()):
        return {}
    _, first = extremes(np.where(there, rows, len(rows)), pictures)
    twin = first[pictures.group_of]
    found = np.flatnonzero(here & (twin < len(rows)))
    return dict(zip(found.tolist(), twin[found].tolist(), strict=True))


def extremes(values: Integers, pictures: Pictures) -> tuple[Integers, Integers]:
    """For each group, the largest and the smallest of the rows' `values` in it and in the groups paired with it."""
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
    """For each row of `among` whose picture nearly equals one of another class: its row -> one such row of `among`.

    Args:
        classes: the number of each row's class, (N,).
        among: the rows to compare, (N,).
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
