"""`detect.detector: none`: no boxes, so the whole of every image is used."""

from collections.abc import Iterator
from typing import Literal

import pyarrow as pa

from temper.detections import Boxes
from temper.settings.detect import DetectorSettings


class Settings(DetectorSettings):
    """`detector: none` has no settings of its own."""

    detector: Literal["none"]


def find_boxes(images: pa.Table, settings: Settings) -> Iterator[tuple[str, Boxes]]:
    """No boxes at all."""
    return iter(())
