"""Batches for Keras from packed images or embeddings, the same on every backend.

Targets are one-hot: they can be smoothed, weighted and mixed, which class numbers cannot.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from temper.devices import divisible, spread

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

    Where each is spread over several devices, it comes as (inputs, targets, weights), and one that cannot be shared out
    equally, such as the last one, has rows of its own again at its end, which weigh 0. No image is left out. They do
    count in the statistics of a BatchNorm that trains. Of processes that train together each reads its share alone.

    Args:
        read: the inputs of some rows, (n,) int64 -> (n, ...), or a tuple of such arrays; called on threads.
        targets: the targets of some rows, (n,) int64 -> float32 (n, classes), such as `one_hot`; or `None`.
        order: rows, int64.
        workers: threads that read ahead.
        mixes: whether what is read of a row depends on the others of its batch.
    """

    def __init__(
        self,
        read: Callable[[Indices], npt.NDArray[Any] | tuple[npt.NDArray[Any], ...]],
        targets: Callable[[Indices], Targets] | None,
        order: Indices,
        batch_size: int,
        workers: int = 1,
        mixes: bool = False,
    ) -> None:
        super().__init__(workers=workers, max_queue_size=4 * workers)
        self._read, self._targets, self._order, self._batch_size = read, targets, order, batch_size
        self._mixes, self._spread = mixes, spread()

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self._batch_size)

    def _rows(self, number: int) -> Indices:
        return self._order[number * self._batch_size : (number + 1) * self._batch_size]

    def __getitem__(self, number: int) -> Any:
        rows = self._rows(number)
        if self._spread.devices == 1:
            return self._of(rows)
        share = self._spread.share(len(rows))
        places = share % len(rows)
        if self._mixes:
            read = tuple(array[places] for array in _tuple(self._of(rows)))
        else:
            read = _tuple(self._of(rows[places]))
        return read[0] if self._targets is None else (*read, (share < len(rows)).astype(np.float32))

    def _of(self, rows: Indices) -> Any:
        """What is read of some rows: (inputs, targets), or inputs alone."""
        return self._read(rows) if self._targets is None else (self._read(rows), self._targets(rows))

    def inputs(self, number: int) -> Any:
        """The inputs of a whole batch, however it is spread."""
        return self._read(self._rows(number))

    @property
    def is_filled_up(self) -> npt.NDArray[np.bool_]:
        """Of each row of all batches, whether it only fills its batch up."""
        ends = [*range(self._batch_size, len(self._order), self._batch_size), len(self._order)]
        counts = np.diff([0, *ends])
        return np.concatenate([np.arange(divisible(count, self._spread.devices)) >= count for count in counts])


def _tuple(read: Any) -> tuple[npt.NDArray[Any], ...]:
    return read if isinstance(read, tuple) else (read,)


def predict(model: keras.Model, batches: Batches, verbose: int = 0) -> npt.NDArray[Any]:
    """What a model says of the inputs of some batches, (n, ...), a row for each row of their order."""
    how = spread()
    if how.processes > 1:  # Keras's `predict` cannot fetch what another process has: each computes all of it
        return np.concatenate([model.predict_on_batch(batches.inputs(number)) for number in range(len(batches))])
    said: npt.NDArray[Any] = model.predict(batches, verbose=verbose)
    return said if how.devices == 1 else said[~batches.is_filled_up]


def shuffled(rows: int, seed: int, epoch: int) -> Indices:
    """The order of an epoch, known from the seed and the epoch's number alone."""
    return np.random.default_rng([seed, epoch]).permutation(rows)
