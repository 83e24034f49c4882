"""Batches for Keras from packed images or embeddings, the same on every backend."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

# Where only the forward pass counts. A constant: as a param it would rerun stages that its value does not change.
INFERENCE_BATCH = 64

Indices = npt.NDArray[np.int64]


class Batches(keras.utils.PyDataset):
    """Batches of (inputs, labels) in a given order, or of inputs alone.

    Args:
        read: the inputs of some rows, (n,) int64 -> (n, ...); called on threads.
        labels: int32 (N,), or `None`.
        order: rows, int64.
        workers: threads that read ahead.
    """

    def __init__(
        self,
        read: Callable[[Indices], npt.NDArray[Any]],
        labels: npt.NDArray[np.int32] | None,
        order: Indices,
        batch_size: int,
        workers: int = 1,
    ) -> None:
        super().__init__(workers=workers, max_queue_size=4 * workers)
        self._read, self._labels, self._order, self._batch_size = read, labels, order, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self._batch_size)

    def __getitem__(self, number: int) -> Any:
        rows = self._order[number * self._batch_size : (number + 1) * self._batch_size]
        return self._read(rows) if self._labels is None else (self._read(rows), self._labels[rows])


def shuffled(rows: int, seed: int, epoch: int) -> Indices:
    """The order of an epoch, known from the seed and the epoch's number alone."""
    return np.random.default_rng([seed, epoch]).permutation(rows)
