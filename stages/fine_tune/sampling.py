"""Which images an epoch trains on, and in which order; both follow from the seed and the epoch's number alone."""

import numpy as np
import numpy.typing as npt

from temper.batches import Indices, shuffled
from temper.settings.fine_tune import Sampling

Labels = npt.NDArray[np.int32]
# Added to the seeds of the random generators below, so that the order of a class's images, the choice of views and the
# order of an epoch never use the same random numbers.
STREAM = 2**32 - 1
VIEWS_STREAM = 2**32 - 2
POWERS = {"balanced": 0.0, "sqrt": 0.5}  # an epoch draws each class in proportion to (images of the class) ** power


def order(labels: Labels, sampling: Sampling, seed: int, epoch: int) -> Indices:
    """The rows of the images that an epoch trains on, in order, int64 (N,), where N is the number of images.

    "natural" takes every image once. "balanced" takes each class equally often; "sqrt" in proportion to the square root
    of its number of images. Both take images of rare classes several times and only some images of frequent classes.
    All images of a class are used before one is used again, also from one epoch to the next, so over the whole training
    the numbers of times that two images of a class are used differ by at most 1.

    Args:
        labels: the class of each image, int32 (N,).
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
    """How many images of each class an epoch takes, int64 (classes,), each at least 1; they add up to all images.

    Shares are rounded by the largest remainder; of equal remainders, the class with the lower number gets the image.

    Args:
        counts: how many images each class has, int64 (classes,), each at least 1.
    """
    weights = counts.astype(np.float64) ** POWERS[sampling]
    exact = counts.sum() * weights / weights.sum()
    quota: npt.NDArray[np.int64] = np.floor(exact + 1e-9).astype(np.int64)
    missing = int(counts.sum() - quota.sum())
    quota[np.argsort(quota - exact, kind="stable")[:missing]] += 1
    return quota


def repeats(rows: Indices) -> Indices:
    """How often each row occurred earlier in the order, int64 (N,): 0 at its first occurrence, then 1, 2, ..."""
    by_row = np.argsort(rows, kind="stable")
    changes = np.flatnonzero(np.diff(rows[by_row], prepend=-1))  # where the occurrences of the next row begin
    lengths = np.diff(changes, append=len(rows))
    found = np.empty(len(rows), np.int64)
    found[by_row] = np.arange(len(rows)) - np.repeat(changes, lengths)
    return found


def views(rows: Indices, images: int, count: int, seed: int, epoch: int) -> Indices:
    """Which of its stored views each image of an epoch is shown in, int64 (n,), each from 0 to `count` - 1.

    Each image starts at a view drawn at random and goes on to the next view with each epoch. With the sampling
    "natural", `count` epochs therefore show every view of every image once, and each epoch mixes plain and augmented
    images. An image that occurs several times in one epoch is shown in successive views.

    Args:
        rows: the images of the epoch, in the order that `order` returns, (n,).
        images: how many training images there are.
        count: how many views are stored of each image; view 0 is the plain image.
    """
    starts = np.random.default_rng([seed, VIEWS_STREAM]).integers(count, size=images)
    of_rows: Indices = (starts[rows] + epoch + repeats(rows)) % count
    return of_rows


def _turn(rows: Indices, quota: int, seed: int, label: int, epoch: int) -> Indices:
    """The rows of a class that an epoch takes: the next `quota` of an endless sequence of shuffles of all its rows."""
    start, end = epoch * quota, (epoch + 1) * quota
    first, last = start // len(rows), (end - 1) // len(rows)
    shuffles = [
        rows[np.random.default_rng([seed, label, number, STREAM]).permutation(len(rows))]
        for number in range(first, last + 1)
    ]
    offset = start - first * len(rows)
    return np.concatenate(shuffles)[offset : offset + quota]
