"""Batches for Keras from packed images, embeddings or activations, the same on every backend.

Targets are one-hot, because class numbers cannot be smoothed, weighted or mixed.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from temper.devices import divisible, spread

# The batch size for forward passes. A constant: as a param, a change would rerun stages whose results stay the same.
INFERENCE_BATCH = 64

Indices = npt.NDArray[np.int64]
Targets = npt.NDArray[np.float32]  # (n, classes): the target probabilities; each row sums to 1


def one_hot(labels: npt.NDArray[np.int32], classes: int) -> Callable[[Indices], Targets]:
    """Returns a function for `Batches` from rows to their targets: 1 for the class of a row's label, 0 for all others.

    Args:
        labels: int32 (N,), each at least 0 and below `classes`.
    """
    of_class = np.eye(classes, dtype=np.float32)
    return lambda rows: of_class[labels[rows]]


class Batches(keras.utils.PyDataset):
    """Batches of (inputs, targets) in a given order, or of inputs alone.

    If several devices share each batch, it has a third part: (inputs, targets, weights). A batch that does not divide
    equally among the devices, such as the last one, is filled up with its own first rows again, which have weight 0; so
    no image is left out. The repeated rows do count in the statistics of a BatchNorm layer that trains. If several
    processes train together, each reads only its own share of a batch.

    Args:
        read: returns the inputs of some rows, (n,) int64 -> (n, ...), or a tuple of such arrays; called on threads.
        targets: returns the targets of some rows, (n,) int64 -> float32 (n, classes), such as `one_hot`; `None`: the
            batches are inputs alone.
        order: the rows in the order in which they are read, int64.
        workers: the number of threads that read ahead.
        mixes: whether the result of `read` for a row depends on the other rows of its batch.
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
            read = _tuple(keras.tree.map_structure(lambda array: array[places], self._of(rows)))
        else:
            read = _tuple(self._of(rows[places]))
        return read[0] if self._targets is None else (*read, (share < len(rows)).astype(np.float32))

    def _of(self, rows: Indices) -> Any:
        """The (inputs, targets) of some rows, or their inputs alone."""
        return self._read(rows) if self._targets is None else (self._read(rows), self._targets(rows))

    def inputs(self, number: int) -> Any:
        """The inputs of a whole batch, even if several devices or processes share it."""
        return self._read(self._rows(number))

    @property
    def is_filled_up(self) -> npt.NDArray[np.bool_]:
        """For each row of all batches, whether it is a repeated row that only fills its batch up."""
        ends = [*range(self._batch_size, len(self._order), self._batch_size), len(self._order)]
        counts = np.diff([0, *ends])
        return np.concatenate([np.arange(divisible(count, self._spread.devices)) >= count for count in counts])


def _tuple(read: Any) -> tuple[npt.NDArray[Any], ...]:
    return read if isinstance(read, tuple) else (read,)


def predict(model: keras.Model, batches: Batches, verbose: int = 0) -> npt.NDArray[Any]:
    """A model's predictions for the inputs of some batches, (n, ...), one row for each row of their order."""
    how = spread()
    if how.processes > 1:  # Keras's `predict` cannot fetch what another process computed: each computes everything
        return np.concatenate([model.predict_on_batch(batches.inputs(number)) for number in range(len(batches))])
    said: npt.NDArray[Any] = model.predict(batches, verbose=verbose)
    return said if how.devices == 1 else said[~batches.is_filled_up]


def shuffled(rows: int, seed: int, epoch: int) -> Indices:
    """The order of an epoch, a permutation that follows from the seed and the epoch's number alone."""
    return np.random.default_rng([seed, epoch]).permutation(rows)
