"""Which images an epoch shows: all of them once, or each class as often as the setting says."""

from typing import get_args

import numpy as np
import pytest

from stages.fine_tune.sampling import order, quotas, repeats, views
from temper.batches import shuffled
from temper.settings.fine_tune import Sampling

BY_CLASS: list[Sampling] = ["balanced", "sqrt"]
# Images of each class.
COUNTS = [[40, 5, 1], [10, 10, 10], [1000, 3], [7], [3, 2, 2], [1, 1, 1, 100], [30, 0, 6]]


def labels_of(counts: list[int]) -> np.ndarray:
    """Labels, mixed, so that a class's rows do not stand together."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)


@pytest.mark.parametrize(
    ("counts", "sampling", "expected"),
    [
        ([40, 5, 1], "balanced", [16, 15, 15]),
        ([10, 10, 10], "balanced", [10, 10, 10]),
        ([10, 10, 10], "sqrt", [10, 10, 10]),
        ([64, 16, 4], "balanced", [28, 28, 28]),
        ([64, 16, 4], "sqrt", [48, 24, 12]),
        ([97, 1, 1, 1], "balanced", [25, 25, 25, 25]),
        ([1, 1], "sqrt", [1, 1]),
        ([7], "balanced", [7]),
    ],
)
def test_quotas(counts: list[int], sampling: Sampling, expected: list[int]) -> None:
    assert quotas(np.array(counts), sampling).tolist() == expected


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("sampling", BY_CLASS)
def test_an_epoch_shows_as_many_images_as_there_are_by_their_quotas(counts: list[int], sampling: Sampling) -> None:
    labels = labels_of(counts)
    present = np.array([count for count in counts if count])
    for epoch in range(4):
        rows = order(labels, sampling, 0, epoch)
        assert len(rows) == len(labels) and rows.dtype == np.int64
        shown = np.bincount(labels[rows], minlength=len(counts))
        assert shown[np.array(counts) > 0].tolist() == quotas(present, sampling).tolist()
        assert shown.min() >= (0 if 0 in counts else 1)


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("sampling", BY_CLASS)
def test_no_image_of_a_class_is_shown_more_than_once_more_than_another(counts: list[int], sampling: Sampling) -> None:
    """In one epoch and over several."""
    labels = labels_of(counts)
    shown = np.zeros(len(labels), int)
    for epoch in range(7):
        now = np.bincount(order(labels, sampling, 3, epoch), minlength=len(labels))
        shown += now
        for label in np.unique(labels):
            assert np.ptp(shown[labels == label]) <= 1
            assert np.ptp(now[labels == label]) <= 2  # the end of one round and the beginning of the next


@pytest.mark.parametrize("sampling", get_args(Sampling))
def test_the_order_follows_from_seed_and_epoch(sampling: Sampling) -> None:
    labels = labels_of([40, 20, 5])
    orders = [tuple(order(labels, sampling, *place)) for place in ((0, 0), (0, 1), (1, 0))]
    assert len(set(orders)) == 3
    assert orders == [tuple(order(labels, sampling, *place)) for place in ((0, 0), (0, 1), (1, 0))]


def test_the_natural_order_is_the_shuffled_one() -> None:
    labels = labels_of([40, 20, 5])
    for epoch in range(3):
        assert np.array_equal(order(labels, "natural", 5, epoch), shuffled(65, 5, epoch))


def test_classes_are_spread_over_the_epoch() -> None:
    """Not class after class: each quarter of an epoch has about its share of each."""
    labels = labels_of([400, 40, 40])
    quarters = np.split(labels[order(labels, "balanced", 0, 0)], 4)
    assert all(20 < (quarter == label).sum() < 60 for quarter in quarters for label in range(3))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([3, 1, 3, 3, 0, 1], [0, 0, 1, 2, 0, 1]),
        ([0, 1, 2], [0, 0, 0]),
        ([5, 5], [0, 1]),
        ([0], [0]),
    ],
)
def test_repeats_count_from_0_for_each_row(rows: list[int], expected: list[int]) -> None:
    assert repeats(np.array(rows, np.int64)).tolist() == expected


def test_so_many_epochs_show_every_view_of_every_image_once() -> None:
    labels = labels_of([40, 20])
    shown = np.empty((3, len(labels)), np.int64)
    for epoch in range(3):
        rows = order(labels, "natural", 5, epoch)
        shown[epoch, rows] = views(rows, len(labels), 3, 5, epoch)
        assert set(shown[epoch, rows[:32]].tolist()) == {0, 1, 2}, "a batch has plain and augmented images"
    assert (np.sort(shown, axis=0) == np.arange(3)[:, None]).all()
    rows = order(labels, "natural", 5, 1)
    assert np.array_equal(views(rows, len(labels), 3, 5, 1), shown[1, rows]), "by seed and epoch alone"
    assert not np.array_equal(views(rows, len(labels), 3, 6, 1), shown[1, rows])


def test_an_image_that_an_epoch_repeats_is_in_another_view() -> None:
    labels = labels_of([30, 10])
    rows = order(labels, "balanced", 0, 0)
    seen = views(rows, len(labels), 4, 0, 0)
    rare = [row for row in np.unique(rows).tolist() if (rows == row).sum() > 1]
    assert rare and all(len(set(seen[rows == row].tolist())) == (rows == row).sum() for row in rare)
