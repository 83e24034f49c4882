"""`detect.detector: yolox`: any model in YOLOX's format (Ge et al., arXiv:2107.08430), run by OpenCV.

temper/yolox.py has the model; this module has its settings and runs it on several photos in parallel.
"""

import hashlib
import inspect
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import pyarrow as pa
from pydantic import Field

from stages.detect import detector, unseen
from stages.detect.detector import Photo
from temper import photos, yolox
from temper.detections import Boxes, areas, intersection_over_union, suppress
from temper.network.downloads import obtain
from temper.parallel import ordered_map
from temper.settings.base import ImageSize, Sha256, Share, Text
from temper.settings.detect import EngineSettings
from temper.yolox import COCO, FLOOR, NANO, NANO_INPUT, NANO_SHA256, YoloxModel


class Settings(EngineSettings):
    """`detector: yolox`: any model in YOLOX's format; by default YOLOX-Nano, trained on COCO."""

    detector: Literal["yolox"]
    weights: Text = Field(NANO, description="the address or path of the network, an ONNX file")
    sha256: Sha256 = Field(NANO_SHA256, description="the expected SHA-256 checksum of that file")
    input_size: ImageSize = Field(
        NANO_INPUT, description="the image size that the network was exported for, in pixels: N or [height, width]"
    )
    classes: Literal["coco"] | list[str] = Field(
        "coco", description="the names of the network's classes, in its order; coco: the 80 of COCO"
    )
    floor: Share = Field(FLOOR, description="boxes with a lower score are not stored, 0 to 1")


def find_boxes(images: pa.Table, settings: Settings) -> Iterator[tuple[str, Boxes]]:
    """All boxes of each image above the floor, from the model or from the cache."""
    threads = 1 if settings.engine == "ray" else None  # an actor has one core
    return unseen.find_boxes(images, "yolox", partial(YoloxDetector, settings, threads), settings)


class YoloxDetector:
    """A model in YOLOX's format.

    Raises:
        TemperError: the weights are missing or have another checksum, or the file is not a model in this format.
    """

    def __init__(self, settings: Settings, threads: int | None = None) -> None:
        self.settings, self._threads = settings, threads
        weights = obtain(settings.weights, settings.sha256, "detect.weights")
        classes = COCO if settings.classes == "coco" else settings.classes
        self._model = YoloxModel(weights, settings.input_size, classes, settings.floor, settings.weights)
        self.key = self._fingerprint()

    def detect(self, photos: Iterator[Photo]) -> Iterator[tuple[str, Boxes]]:
        """The boxes of each photo, in order. Each thread processes one photo, so some decode while others infer."""
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # no threads inside OpenCV: splitting single layers over cores wastes a quarter of them
        try:
            yield from ordered_map(self._detect, photos, self._threads)
        finally:
            cv2.setNumThreads(threads)

    def close(self) -> None:
        """Does nothing: there is nothing to release."""

    def _detect(self, photo: Photo) -> tuple[str, Boxes]:
        return photo.image_id, self._model.boxes(detector.decode(photo))

    def _fingerprint(self) -> str:
        settings = self.settings.model_dump(include={"sha256", "input_size", "classes", "floor"})
        code = [Path(path).read_text(encoding="utf-8") for path in (yolox.__file__, photos.__file__)]
        code += [inspect.getsource(function) for function in (suppress, intersection_over_union, areas)]
        code = [detector.code_that_computes(text) for text in code]
        return hashlib.sha256(json.dumps([settings, cv2.__version__, code], sort_keys=True).encode()).hexdigest()[:16]
