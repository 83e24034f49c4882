"""Batches for Keras from packed images or embeddings, the same on every backend.

Targets are one-hot: they can be smoothed, weighted and mixed, which class numbers cannot.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

# Where only the forward pass counts. A constant: as a param it would rerun stages that its value does not change.
INFERENCE_BATCH = 64

Indices = npt.NDArray[np.int64]
Targets = npt.NDArray[np.float32]  # (n, classes): what the probabilities should be; each row sums to 1


def one_hot(labels: npt.NDArray[np.int32], classes: int) -> Callable[[Indices], Targets]:
    """The targets of some rows, for `Batches`: 1 for the class of the row's label, 0 for all others.

    Args:
        labels: int32 (N,), each at least 0 and below `classes`.
    """
    of_class = np.eye(classes, dtype=np.float32)
    return lambda rows: of_class[labels[rows]]


class Batches(keras.utils.PyDataset):
    """Batches of (inputs, targets) in a given order, or of inputs alone.

    Args:
        read: the inputs of some rows, (n,) int64 -> (n, ...), or a tuple of such arrays; called on threads.
        targets: the targets of some rows, (n,) int64 -> float32 (n, classes), such as `one_hot`; or `None`.
        order: rows, int64.
        workers: threads that read ahead.
    """

    def __init__(
        self,
        read: Callable[[Indices], npt.NDArray[Any] | tuple[npt.NDArray[Any], ...]],
        targets: Callable[[Indices], Targets] | None,
        order: Indices,
        batch_size: int,
        workers: int = 1,
    ) -> None:
        super().__init__(workers=workers, max_queue_size=4 * workers)
        self._read, self._targets, self._order, self._batch_size = read, targets, order, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self._batch_size)

    def __getitem__(self, number: int) -> Any:
        rows = self._order[number * self._batch_size : (number + 1) * self._batch_size]
        return self._read(rows) if self._targets is None else (self._read(rows), self._targets(rows))


def shuffled(rows: int, seed: int, epoch: int) -> Indices:
    """The order of an epoch, known from the seed and the epoch's number alone."""
    return np.random.default_rng([seed, epoch]).permutation(rows)
