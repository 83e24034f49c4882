"""Runs a `.keras` file with Keras, on the backend of its training unless KERAS_BACKEND names another one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from temper import card
from temper.base import backend
from temper.photos import Pixels

BATCH = 32  # photos at a time, the default of Keras's `predict`: larger batches take more memory and are not faster


class KerasModel:
    """A model of Keras; see `opening.Runtime`."""

    def __init__(self, path: str | Path) -> None:
        self.card = card.read(path)
        backend.prefer(self.card.backbone.backend)
        from temper import keras_files  # noqa: PLC0415 (imports Keras, whose backend is known only now)

        self._model: Any = keras_files.load(path)

    def probabilities(self, photos: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """The probabilities of prepared photos; see `opening.Runtime`."""
        # Not `predict`, which takes 0.05 s to start.
        batches = (photos[start : start + BATCH] for start in range(0, len(photos), BATCH))
        return np.concatenate([self._model.predict_on_batch(np.stack(batch)) for batch in batches]).astype(np.float32)


def open_model(path: str | Path) -> KerasModel:
    """Opens a `.keras` file.

    Raises:
        TemperError: the file is missing or damaged, or has no card.
    """
    return KerasModel(path)
