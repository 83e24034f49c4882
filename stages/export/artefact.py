"""The input (`Request`) and the result (`Artefact`) of the modules in stages/export/formats/."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt

from temper.measures.calibration import Probabilities

Images = npt.NDArray[np.uint8]  # (n, height, width, 3), RGB, 0-255


@dataclass(frozen=True)
class Request:
    """The input of an exporter.

    Attributes:
        classifier: (n, height, width, 3) pixels, RGB, 0-255 -> (n, classes) probabilities.
        card: the classifier's card as JSON, which goes into the file.
        calibration: training images from which quantized formats learn the ranges of activations; may be empty for
            other formats.
    """

    classifier: keras.Model
    card: str
    calibration: Images


@dataclass(frozen=True)
class Artefact:
    """An exported file, opened with the runtime that its users have.

    Attributes:
        inputs: the shape of each input of the graph; -1 or a name stands for a dimension of any size.
        card: the card inside the file, as JSON.
        any_batch: whether the file takes any number of images at a time; otherwise it takes one.
        predict: returns the probabilities, (n, classes), of n images; n must be 1 unless `any_batch`.
    """

    inputs: list[tuple[int | str, ...]]
    card: str
    any_batch: bool
    predict: Callable[[Images], Probabilities]
