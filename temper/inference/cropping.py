"""The main object of a new photo, found as it was found in the training photos, by what the model's card says of it.

The card names the detector and the checksum of its weights, not where these are and how the detector reads them: for
weights other than the published ones, who predicts says it.
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
    """Where a detector's weights are, and how it reads them; the defaults are those of `detect.detector: yolox`.

    Attributes:
        weights: a path; `None`: where `detect` downloaded them, or, of the published ones, where they are published.
        input_size: height and width in pixels.
        classes: of the detector, in their order.
    """

    weights: str | None = None
    input_size: tuple[int, int] = NANO_INPUT
    classes: Sequence[str] = COCO


class MainObjectFinder:
    """Finds what a model was cropped to in training. May be used by several threads at once.

    Attributes:
        weights: the file of the detector's weights.

    Raises:
        TemperError: it was cropped by what cannot look at new photos here, or the weights are missing or others.
    """

    def __init__(self, path: str | Path, crop: Crop, choice: DetectorChoice) -> None:
        if crop.detector != "yolox" or crop.sha256 is None:
            raise TemperError(_cannot_find(path, crop.detector))
        self._rule = MainBox.model_validate(crop.box)
        self.weights = weights = _weights(path, crop.sha256, choice)
        self._detector = YoloxModel(weights, choice.input_size, choice.classes, place=str(choice.weights or weights))

    def find(self, data: bytes) -> Box | None:
        """The main object of an encoded photo; `None`: there is none, or it is too small, so the whole photo is used.

        The same bits as the pipeline's only with OpenCV at one thread.

        Raises:
            BadPhoto: the bytes are no usable image.
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
    """The file of the weights with this checksum."""
    if choice.weights is not None:
        return _compared(path, Path(choice.weights), sha256)
    kept = repository() / ".temper" / "downloads" / sha256  # where `detect` keeps what it downloads
    if kept.is_file():
        return _compared(path, kept, sha256)
    if sha256 == NANO_SHA256 and find_spec("requests") is not None:  # which the server does without
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
