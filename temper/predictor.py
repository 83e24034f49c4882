"""Predicts the classes of photos with a trained classifier. All that it needs is in the model's file (law 3).

from temper.predictor import Predictor
Predictor("models/fine_tune.keras").predict("photo.jpg")    # [("rose", 0.93), ("tulip", 0.05), ...]

The file may be a `.keras`, `.tflite` or `.onnx` file, told apart by the ending; the last two need neither TensorFlow
nor Keras.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from temper import preparation
from temper.base.errors import TemperError
from temper.inference.runtimes.opening import open_model
from temper.measures import calibration
from temper.photos import BadPhoto, Box, Pixels


class Predictor:
    """A model of this pipeline, which prepares photos in the same way as in training.

    Attributes:
        card: the model's card: its classes, how photos are prepared, where its backbone comes from.
        preparation: how a photo becomes the model's input, for `temper.preparation.prepare`.

    Raises:
        TemperError: the file is missing, is no model, or has no card; or the package that runs it is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self._runtime = open_model(path)
        self.card = self._runtime.card
        made = self.card.preparation
        margin = made.crop.margin if made.crop else 0.0
        self.preparation = preparation.Preparation(made.height, made.width, made.fit, margin)

    def prepare(self, photo: str | Path | bytes, box: Box | None = None) -> Pixels:
        """Prepares a photo for the model: uint8 (height, width, 3), RGB, 0-255; the same bits as from `pack`.

        Args:
            photo: a path, or the encoded bytes.
            box: x1, y1, x2, y2 of the main object in pixels of the upright photo, for a model that was trained on
                cropped photos (`card.preparation.crop`). Without a box, the whole photo is used.

        Raises:
            TemperError: the photo cannot be read.
        """
        data = photo if isinstance(photo, bytes) else Path(photo).read_bytes()
        try:
            return preparation.prepare(data, self.preparation, box)
        except BadPhoto as reason:
            name = "the photo" if isinstance(photo, bytes) else str(photo)
            raise TemperError(f"{name}: expected a photo, received {reason}") from None

    def probabilities(self, photos: Sequence[Pixels], calibrated: bool = False) -> npt.NDArray[np.float32]:
        """The probabilities of prepared photos, float32 (n, classes), in the order of `card.classes`.

        Args:
            calibrated: whether to scale them by the card's temperature, so that of the photos with a probability of
                0.8, about 80 % are predicted correctly. The order of the classes stays the same.
        """
        found = self._runtime.probabilities(photos)
        return calibration.scale(found, self.card.temperature) if calibrated else found

    def predict(
        self, photo: str | Path | bytes, top: int = 3, box: Box | None = None, calibrated: bool = False
    ) -> list[tuple[str, float]]:
        """The `top` most probable classes of one photo with their probabilities, the most probable first."""
        of_photo = self.probabilities([self.prepare(photo, box)], calibrated)[0]
        order = np.argsort(-of_photo, kind="stable")[:top]
        return [(self.card.classes[number], float(of_photo[number])) for number in order]
