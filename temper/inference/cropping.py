"""Finds the main object of a new photo in the same way as in the training photos, as the model's card describes.

The card has the detector's name and the checksum of its weights, but not where the weights are, nor their input size
and classes. For weights other than the published ones, the user must give these (`DetectorChoice`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from temper import main_object, photos
from temper.base.errors import TemperError
from temper.base.paths import repository
from temper.card import Crop
from temper.main_object import shorter_side
from temper.photos import Box
from temper.settings.pack import MainBox
from temper.yolox import COCO, NANO, NANO_INPUT, NANO_SHA256, YoloxModel

WHOLE = "--whole shows it whole photos, on which it was not trained"


@dataclass(frozen=True)
class DetectorChoice:
    """Where a detector's weights are, and their input size and classes; by default those of `detect.detector: yolox`.

    Attributes:
        weights: a path; `None`: the file that `detect` downloaded, or else, for the published weights, a new download.
        input_size: the height and width of the detector's input in pixels.
        classes: the detector's classes, in order.
    """

    weights: str | None = None
    input_size: tuple[int, int] = NANO_INPUT
    classes: Sequence[str] = COCO


class MainObjectFinder:
    """Finds the object to which a model's training photos were cropped. May be used by several threads at once.

    Attributes:
        weights: the path of the detector's weights.

    Raises:
        TemperError: the model's detector cannot be run on new photos here, or its weights are missing or have another
            checksum.
    """

    def __init__(self, path: str | Path, crop: Crop, choice: DetectorChoice) -> None:
        if crop.detector != "yolox" or crop.sha256 is None:
            raise TemperError(_cannot_find(path, crop.detector))
        self._rule = MainBox.model_validate(crop.box)
        self.weights = weights = _weights(path, crop.sha256, choice)
        self._detector = YoloxModel(weights, choice.input_size, choice.classes, place=str(choice.weights or weights))

    def find(self, data: bytes) -> Box | None:
        """The main object of an encoded photo; `None`: there is none, or it is too small, so the whole photo is used.

        The box has the same bits as in the pipeline only if OpenCV uses one thread.

        Raises:
            BadPhoto: the bytes are not a usable image.
        """
        pixels = photos.decode(data)
        found = self._detector.boxes(pixels)
        chosen = main_object.choose(found, pixels.shape[0], pixels.shape[1], self._rule)
        if chosen is None:
            return None
        box = found.box(chosen)
        return box if shorter_side(box) >= self._rule.min_box else None


def _cannot_find(path: str | Path, detector: str) -> str:
    if detector == "published":
        why = "boxes that its data set published, which a new photo does not have"
    else:
        why = f"the detector {detector}, which runs in the pipeline only"
    return f"{path}: it was trained on photos cropped to their main object by {why}: crop the photos first; {WHOLE}"


def _weights(path: str | Path, sha256: str, choice: DetectorChoice) -> Path:
    """Finds or downloads the file of weights with this checksum."""
    if choice.weights is not None:
        return _compared(path, Path(choice.weights), sha256)
    kept = repository() / ".temper" / "downloads" / sha256  # where `detect` keeps what it downloads
    if kept.is_file():
        return _compared(path, kept, sha256)
    if sha256 == NANO_SHA256 and find_spec("requests") is not None:  # the server's environment does not have requests
        from temper.network.downloads import obtain  # noqa: PLC0415

        return obtain(NANO, sha256, "--detector-weights")
    raise TemperError(
        f"{path}: it was trained on photos that a detector with weights of sha256 {sha256} cropped, which are not "
        f"here: name their file by --detector-weights; {WHOLE}"
    )


def _compared(path: str | Path, weights: Path, sha256: str) -> Path:
    try:
        with weights.open("rb") as file:
            received = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TemperError(f"{weights}: expected the weights of a detector, received {error.strerror}") from None
    if received != sha256:
        raise TemperError(
            f"{weights}: expected the weights of the detector that cropped the photos of {path}, with sha256 {sha256}, "
            f"received {received}; name the right file by --detector-weights"
        )
    return weights
