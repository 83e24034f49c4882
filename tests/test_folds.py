"""Folds: every class spread, groups whole, the same from the same seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.folds import stratified_folds


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(2, 10), st.integers(0, 3))
def test_each_class_is_spread_evenly(labels: list[int], count: int, seed: int) -> None:
    classes = np.array(labels)
    folds = stratified_folds(classes, count, seed)
    assert folds.min() >= 0 and folds.max() < count
    for label in set(labels):
        images = np.bincount(folds[classes == label], minlength=count)
        assert images.max() - images.min() <= 1
    everything = np.bincount(folds, minlength=count)
    assert everything.max() - everything.min() <= len(set(labels))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=60), st.integers(2, 6))
def test_a_group_stays_together(images: list[tuple[int, int]], count: int) -> None:
    labels, groups = np.array(images).T
    folds = stratified_folds(labels, count, 0, groups)
    for group in set(groups.tolist()):
        assert len(set(folds[groups == group].tolist())) == 1


def test_the_seed_decides() -> None:
    labels = np.arange(100) % 4
    first = stratified_folds(labels, 5, 0)
    assert np.array_equal(first, stratified_folds(labels, 5, 0))
    assert not np.array_equal(first, stratified_folds(labels, 5, 1))


@pytest.mark.parametrize("sizes", [[7, 1, 1, 1], [2, 2, 2, 2, 1, 1]])
def test_large_groups_are_dealt_first(sizes: list[int]) -> None:
    """So that the small ones can even the folds out."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    images = np.bincount(stratified_folds(np.zeros(len(groups), int), 2, 0, groups))
    assert abs(images[0] - images[1]) <= max(0, 2 * max(sizes) - sum(sizes))
