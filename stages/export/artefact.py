"""What the modules of stages/export/formats/ take and give."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt

from temper.measures.calibration import Probabilities

Images = npt.NDArray[np.uint8]  # (n, height, width, 3), RGB, 0-255


@dataclass(frozen=True)
class Request:
    """What an exporter makes a file of.

    Attributes:
        classifier: (n, height, width, 3) pixels, RGB, 0-255 -> (n, classes) probabilities.
        card: the classifier's card as JSON, which goes into the file.
        calibration: training images, for formats that learn the ranges of their values; may be empty for others.
    """

    classifier: keras.Model
    card: str
    calibration: Images


@dataclass(frozen=True)
class Artefact:
    """An exported file, opened by the runtime that its users have.

    Attributes:
        inputs: the shape of each input of the graph, -1 or a name where it is free.
        card: the card inside the file, as JSON.
        any_batch: whether the file takes any number of images at once; otherwise it takes one.
        predict: the probabilities, (n, classes), of n images, or of one where not `any_batch`.
    """

    inputs: list[tuple[int | str, ...]]
    card: str
    any_batch: bool
    predict: Callable[[Images], Probabilities]
