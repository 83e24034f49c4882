"""A `.keras` file, run by Keras on the backend that it was trained with, or on the one that the environment names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from temper import card
from temper.base import backend
from temper.photos import Pixels

BATCH = 32  # photos at a time, as Keras's own `predict` has it: more take memory and no less time


class KerasModel:
    """A model of Keras; see `opening.Runtime`."""

    def __init__(self, path: str | Path) -> None:
        self.card = card.read(path)
        backend.prefer(self.card.backbone.backend)
        from temper import keras_files  # noqa: PLC0415 (only now is it known for which backend Keras is imported)

        self._model: Any = keras_files.load(path)

    def probabilities(self, photos: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """The probabilities of prepared photos; see `opening.Runtime`."""
        # Not `predict`, which takes a twentieth of a second to begin.
        batches = (photos[start : start + BATCH] for start in range(0, len(photos), BATCH))
        return np.concatenate([self._model.predict_on_batch(np.stack(batch)) for batch in batches]).astype(np.float32)


def open_model(path: str | Path) -> KerasModel:
    """Reads a `.keras` file.

    Raises:
        TemperError: it is missing, damaged or has no card.
    """
    return KerasModel(path)
