"""Batches: what Keras trains on, in the order and under the targets that an epoch should have."""

import numpy as np

from temper.training.batches import Batches, one_hot, shuffled

LABELS = np.array([2, 0, 1, 1, 2], np.int32)


def test_targets_are_one_hot_in_the_order_of_the_rows() -> None:
    targets = one_hot(LABELS, 4)(np.array([0, 3]))
    assert targets.dtype == np.float32
    assert targets.tolist() == [[0, 0, 1, 0], [0, 1, 0, 0]]


def test_every_row_is_in_one_batch_with_its_own_target() -> None:
    order = shuffled(len(LABELS), seed=3, epoch=1)
    batches = Batches(lambda rows: rows[:, None], one_hot(LABELS, 3), order, batch_size=2)
    assert len(batches) == 3
    pairs = [pair for number in range(3) for pair in zip(*batches[number], strict=True)]
    assert [int(rows[0]) for rows, _ in pairs] == order.tolist()
    assert [int(target.argmax()) for _, target in pairs] == LABELS[order].tolist()


def test_without_targets_a_batch_is_its_inputs() -> None:
    batches = Batches(lambda rows: rows, None, np.arange(5), batch_size=3)
    assert [batches[number].tolist() for number in range(2)] == [[0, 1, 2], [3, 4]]
