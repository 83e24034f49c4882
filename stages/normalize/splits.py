"""Which split each image belongs to, so that it stays there whatever else comes.

A published validation or test split is kept. Every other image is placed by a hash of its content and the seed, alone:
no image that is added, before it or after it, moves it. Of two that are nearly the same picture and fall into different
splits only the one in the later split (train, validation, test) may be used, so that no picture is trained on and
tested with.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.normalize.near_duplicates import near_pairs

_RANK = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True)
class Shares:
    """The shares of the images that are drawn to validate and to test; the others train."""

    validation: float
    test: float


@dataclass(frozen=True)
class Placement:
    """Where every row goes.

    Attributes:
        splits: for each row.
        repeats: rows that may not be used, because a row drawn into a later split is nearly the same; with that row.
        leaks: rows that a row of a later split nearly repeats, where one of the two splits is published; with that row.
        near_pairs: how many pairs of different hashes are nearly the same.
    """

    splits: list[str]
    repeats: dict[int, int]
    leaks: dict[int, int]
    near_pairs: int


def hashed_split(content: str, seed: int, shares: Shares) -> str:
    """The split of an image alone: a uniform number from its content and the seed, cut by the shares."""
    digest = hashlib.sha256(f"{seed}:{content}".encode()).digest()
    number = int.from_bytes(digest[:8], "big") / 2**64
    if number < shares.test:
        return "test"
    return "validation" if number < shares.test + shares.validation else "train"


def place(
    sha256: list[str],
    hashes: npt.NDArray[np.uint64],
    published: Sequence[str | None],
    shares: Shares,
    seed: int,
    distance: int | None,
) -> Placement:
    """Places each row.

    Args:
        hashes: perceptual hashes, uint64 (N,).
        published: the source's own split of each row. Rows without one count as train, out of which a split is drawn
            only if the source publishes no such split itself.
        distance: how many bits of two hashes may differ in nearly the same picture; `None`: only equal bytes count.
    """
    given = set(published)
    shares = Shares(
        0.0 if "validation" in given else shares.validation,
        0.0 if "test" in given else shares.test,
    )
    contents = sha256 if distance is None else [str(number) for number in hashes.tolist()]
    fixed = [own in ("validation", "test") for own in published]
    splits = [
        str(own) if kept else hashed_split(content, seed, shares)
        for own, kept, content in zip(published, fixed, contents, strict=True)
    ]
    repeated, pairs = _later_twins(splits, contents, hashes, distance)
    leaks = {row: twin for row, twin in repeated.items() if fixed[row] or fixed[twin]}
    repeats = {row: twin for row, twin in repeated.items() if row not in leaks}
    return Placement(splits, repeats, leaks, pairs)


def _later_twins(
    splits: list[str], contents: list[str], hashes: npt.NDArray[np.uint64], distance: int | None
) -> tuple[dict[int, int], int]:
    """For each row that a row of a later split nearly repeats, that row; and the number of near pairs."""
    _, first, group_of = np.unique(contents, return_index=True, return_inverse=True)
    pairs = near_pairs(hashes[first], distance) if distance else np.empty((0, 2), np.int64)
    near: dict[int, list[int]] = defaultdict(list)
    for left, right in pairs.tolist():
        near[left].append(right)
        near[right].append(left)
    latest: dict[int, int] = {}  # of each group: its row of the latest split
    for row, group in enumerate(group_of.tolist()):
        if group not in latest or _RANK[splits[row]] > _RANK[splits[latest[group]]]:
            latest[group] = row
    twins: dict[int, int] = {}
    for row, group in enumerate(group_of.tolist()):
        twin = max((latest[other] for other in (group, *near.get(group, ()))), key=lambda other: _RANK[splits[other]])
        if _RANK[splits[twin]] > _RANK[splits[row]]:
            twins[row] = twin
    return twins, len(pairs)
