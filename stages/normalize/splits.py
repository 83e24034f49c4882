"""Which split each image belongs to, so that it stays there whatever else comes.

A published validation or test split is kept. Every other image is placed by a hash of its content and the seed, alone:
no image that is added, before it or after it, moves it. Of two that are nearly the same picture and fall into different
splits only the one in the later split (train, validation, test) may be used, so that no picture is trained on and
tested with.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.normalize.near_duplicates import Pairs, near_pairs

RANK = {"train": 0, "validation": 1, "test": 2}

Integers = npt.NDArray[np.int64]


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
    """

    contents: list[str]
    group_of: Integers
    first_of: Integers
    pairs: Pairs


def group(sha256: list[str], hashes: npt.NDArray[np.uint64], distance: int | None) -> Pictures:
    """Groups rows by what they show.

    Args:
        hashes: perceptual hashes, uint64 (N,).
        distance: how many bits of two hashes may differ in nearly the same picture; `None`: only equal bytes count.
    """
    if distance is None:
        _, first, group_of = np.unique(np.asarray(sha256, "S64"), return_index=True, return_inverse=True)
        return Pictures(sha256, group_of, first, np.empty((0, 2), np.int64))
    unique, first, group_of = np.unique(hashes, return_index=True, return_inverse=True)
    return Pictures(list(map(str, hashes.tolist())), group_of, first, near_pairs(unique, distance))


@dataclass(frozen=True)
class Placement:
    """Where every row goes.

    Attributes:
        splits: for each row.
        repeats: rows that may not be used, because a row drawn into a later split is nearly the same; with that row.
        leaks: rows that a row of a later split nearly repeats, where one of the two splits is published; with that row.
    """

    splits: list[str]
    repeats: dict[int, int]
    leaks: dict[int, int]


def hashed_split(content: str, seed: int, shares: Shares) -> str:
    """The split of an image alone: a uniform number from its content and the seed, cut by the shares."""
    number = uniform(f"{seed}:{content}")
    if number < shares.test:
        return "test"
    return "validation" if number < shares.test + shares.validation else "train"


def uniform(text: str) -> float:
    """A number in [0, 1) that `text` alone decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def place(
    pictures: Pictures, published: Sequence[str | None], auxiliary: npt.NDArray[np.bool_], shares: Shares, seed: int
) -> Placement:
    """Places each row.

    Args:
        published: the source's own split of each row. Rows without one count as train, out of which a split is drawn
            only if the source publishes no such split itself.
        auxiliary: bool (N,), rows of the second source: they train, unless another split repeats them.
    """
    given = {own for own, extra in zip(published, auxiliary.tolist(), strict=True) if not extra}
    shares = Shares(
        0.0 if "validation" in given else shares.validation,
        0.0 if "test" in given else shares.test,
    )
    splits = []
    for own, extra, content in zip(published, auxiliary.tolist(), pictures.contents, strict=True):
        if extra:
            splits.append("train")
        else:
            splits.append(own if own in ("validation", "test") else hashed_split(content, seed, shares))
    fixed = [own in ("validation", "test") and not extra for own, extra in zip(published, auxiliary, strict=True)]
    repeated = _later_twins(splits, pictures)
    leaks = {row: twin for row, twin in repeated.items() if not auxiliary[row] and (fixed[row] or fixed[twin])}
    return Placement(splits, {row: twin for row, twin in repeated.items() if row not in leaks}, leaks)


def _later_twins(splits: list[str], pictures: Pictures) -> dict[int, int]:
    """For each row that a row of a later split nearly repeats, the first row of the latest such split."""
    rank = np.asarray([RANK[split] for split in splits], np.int64)
    rows = np.arange(len(rank))
    if not len(rows):
        return {}
    of_group, _ = extremes(rank * len(rows) + (len(rows) - 1 - rows), pictures)
    twin = len(rows) - 1 - of_group[pictures.group_of] % len(rows)
    later = rank[twin] > rank
    return dict(zip(rows[later].tolist(), twin[later].tolist(), strict=True))


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


def conflicts(classes: Integers, pictures: Pictures) -> dict[int, int]:
    """For each row that nearly shows a picture of another class, one such row.

    Args:
        classes: the number of each row's class, (N,).
    """
    rows = np.arange(len(classes))
    if not len(rows):
        return {}
    largest, smallest = (of_group[pictures.group_of] for of_group in extremes(classes * len(rows) + rows, pictures))
    twin = np.where(largest // len(rows) != classes, largest % len(rows), smallest % len(rows))
    differs = classes[twin] != classes
    return dict(zip(rows[differs].tolist(), twin[differs].tolist(), strict=True))
