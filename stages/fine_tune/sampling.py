"""Which images an epoch shows, and in which order, known from the seed and the epoch's number alone."""

import numpy as np
import numpy.typing as npt

from temper.batches import Indices, shuffled
from temper.settings.fine_tune import Sampling

Labels = npt.NDArray[np.int32]
# Tells the random numbers of a class's order from those of an epoch's.
STREAM = 2**32 - 1
VIEWS_STREAM = 2**32 - 2  # and those of the views from an epoch's
POWERS = {"balanced": 0.0, "sqrt": 0.5}  # a class is shown in proportion to its count to the power of this


def order(labels: Labels, sampling: Sampling, seed: int, epoch: int) -> Indices:
    """The rows that an epoch shows, int64 (N,): as many as there are images.

    "natural" shows every image once. "balanced" shows each class equally often, "sqrt" in proportion to the square root
    of its count: images of rare classes several times, of frequent ones only some. A class goes through all its images
    before it shows one again, over the ends of epochs too, so none is shown more than once more than another.

    Args:
        labels: int32 (N,), the class of each image.
    """
    if sampling == "natural":
        return shuffled(len(labels), seed, epoch)
    present, counts = np.unique(labels, return_counts=True)
    drawn = [
        _turn(np.flatnonzero(labels == label), int(quota), seed, int(label), epoch)
        for label, quota in zip(present, quotas(counts, sampling), strict=True)
    ]
    rows = np.concatenate(drawn)
    mixed: Indices = rows[shuffled(len(rows), seed, epoch)]
    return mixed


def quotas(counts: npt.NDArray[np.int64], sampling: Sampling) -> npt.NDArray[np.int64]:
    """How many images of each class an epoch shows: at least one, as many as there are images in all.

    Shares are rounded by the largest remainder; of equal remainders, the earlier class has the image.

    Args:
        counts: int64 (classes,), each at least 1.
    """
    weights = counts.astype(np.float64) ** POWERS[sampling]
    exact = counts.sum() * weights / weights.sum()
    quota: npt.NDArray[np.int64] = np.floor(exact + 1e-9).astype(np.int64)
    missing = int(counts.sum() - quota.sum())
    quota[np.argsort(quota - exact, kind="stable")[:missing]] += 1
    return quota


def repeats(rows: Indices) -> Indices:
    """How often each row stood before in the order, int64 (N,): 0 at its first place, then 1, 2, ..."""
    by_row = np.argsort(rows, kind="stable")
    changes = np.flatnonzero(np.diff(rows[by_row], prepend=-1))  # where the next row begins
    lengths = np.diff(changes, append=len(rows))
    found = np.empty(len(rows), np.int64)
    found[by_row] = np.arange(len(rows)) - np.repeat(changes, lengths)
    return found


def views(rows: Indices, images: int, count: int, seed: int, epoch: int) -> Indices:
    """Which of `count` views an epoch shows of each row: int64 (n,).

    Each image goes through its views in turn, from one that is drawn for it. So `count` epochs show every view of every
    image once, and each epoch, even each batch, has plain and augmented images. Where an epoch shows an image again, it
    is in the next view.

    Args:
        rows: as `order` gives them, of `images` images.
    """
    starts = np.random.default_rng([seed, VIEWS_STREAM]).integers(count, size=images)
    of_rows: Indices = (starts[rows] + epoch + repeats(rows)) % count
    return of_rows


def _turn(rows: Indices, quota: int, seed: int, label: int, epoch: int) -> Indices:
    """What a class shows in an epoch: the next `quota` rows of its endless order, one shuffle after the other."""
    start, end = epoch * quota, (epoch + 1) * quota
    first, last = start // len(rows), (end - 1) // len(rows)
    shuffles = [
        rows[np.random.default_rng([seed, label, number, STREAM]).permutation(len(rows))]
        for number in range(first, last + 1)
    ]
    offset = start - first * len(rows)
    return np.concatenate(shuffles)[offset : offset + quota]
