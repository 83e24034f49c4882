"""`source: digits`: the 1,797 scans of handwritten digits that scikit-learn ships (8x8 pixels, 16 grays)."""

from collections.abc import Iterator
from typing import Literal

import cv2
import numpy as np

from stages.fetch.source import Photo, Source
from temper.settings.fetch import SourceSettings


class Settings(SourceSettings):
    """`source: digits` has no settings of its own."""

    source: Literal["digits"]


def open_source(settings: Settings) -> Source:
    """The digits as PNG files, labelled 0 to 9, without a published split."""
    import sklearn  # noqa: PLC0415 (seconds, and only this source needs it)
    from sklearn.datasets import load_digits  # noqa: PLC0415

    digits = load_digits()

    def photos() -> Iterator[Photo]:
        for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            _, png = cv2.imencode(".png", np.rint(image * (255 / 16)).astype(np.uint8))
            yield Photo(f"digits/{number:04}.png", str(label), None, png.tobytes())

    facts = {
        "source": "digits",
        "from": "sklearn.datasets.load_digits",
        "version": sklearn.__version__,
        "origin": "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI, 1998",
        "licence": "CC BY 4.0",
    }
    return Source(facts, len(digits.images), photos())
