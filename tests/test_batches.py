"""Batches: what Keras trains on, in the order and under the targets that an epoch should have."""

import numpy as np
import pytest

from temper import batches as module
from temper.batches import Batches, one_hot, shuffled
from temper.devices import Spread

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


@pytest.mark.parametrize("mixes", [False, True])
def test_a_batch_is_filled_up_for_the_devices_that_share_it(mixes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No row is left out, none counts twice, and two processes read what one would."""
    rows, labels = np.arange(11), np.zeros(11, np.int32)
    read: list[list[int]] = []

    def inputs(asked: np.ndarray) -> np.ndarray:
        read.append(asked.tolist())
        return asked * 10

    batches = []
    for number in range(2):
        monkeypatch.setattr(module, "spread", lambda number=number: Spread(4, 2, number))
        batches.append(Batches(inputs, one_hot(labels, 2), rows, 6, mixes=mixes))
    for number, (expected, counts) in enumerate([([0, 1, 2, 3, 4, 5, 0, 1], 6), ([6, 7, 8, 9, 10, 6, 7, 8], 5)]):
        read.clear()
        both = [of_process[number] for of_process in batches]
        together, targets, weights = (np.concatenate(arrays) for arrays in zip(*both, strict=True))
        assert together.tolist() == [row * 10 for row in expected] and targets.shape == (8, 2)
        assert weights.tolist() == [1.0] * counts + [0.0] * (8 - counts)
        whole = list(range(number * 6, number * 6 + counts))
        assert read == ([whole, whole] if mixes else [expected[:4], expected[4:]])
    assert batches[0].is_filled_up.nonzero()[0].tolist() == [6, 7, 13, 14, 15]
