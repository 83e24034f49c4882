"""`detect.detector: yolox`: any model in YOLOX's format (Ge et al., arXiv:2107.08430), run by OpenCV itself.

input: (1, 3, height, width), BGR, float32, 0-255; the photo shrunk into the top left corner, the rest 114
output: (1, n, 5 + classes): for each cell of the grids of strides 8, 16 and 32 its box, objectness and class scores
"""

import hashlib
import inspect
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from stages.detect import detector, unseen
from stages.detect.detector import Photo
from temper import photos
from temper.base.errors import TemperError
from temper.boxes import Boxes, areas, intersection_over_union, suppress
from temper.downloads import obtain
from temper.parallel import ordered_map
from temper.settings.base import ImageSize, Sha256, Share, Text
from temper.settings.detect import EngineSettings

# fmt: off
COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator",
    "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
# fmt: on
STRIDES = (8, 16, 32)
BORDER = 114  # gray level beside the photo
OVERLAP = 0.65  # of the suppression in each class, as YOLOX evaluates; the choice among classes is the reader's

Floats = npt.NDArray[np.float32]


class Settings(EngineSettings):
    """`detector: yolox`: any model in YOLOX's format; by default YOLOX-Nano, trained on COCO."""

    detector: Literal["yolox"]
    weights: Text = Field(
        "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_nano.onnx",
        description="the ONNX file: a URL or a path",
    )
    sha256: Sha256 = Field(
        "695e750a5d5754bb5a8d5325643b59282191a7e7a564e435a415fd3c578eab14", description="of the weights"
    )
    input_size: ImageSize = Field((416, 416), description="that the model was exported for: N or [height, width]")
    classes: Literal["coco"] | list[str] = Field("coco", description="the names of its classes, in their order")
    floor: Share = Field(0.05, description="boxes below this score are not stored")


def find_boxes(images: pa.Table, settings: Settings) -> Iterator[tuple[str, Boxes]]:
    """All boxes of each image above the floor, from the model or from the cache."""
    threads = 1 if settings.engine == "ray" else None  # of an actor, which has one core
    return unseen.find_boxes(images, "yolox", partial(YoloxDetector, settings, threads), settings)


class YoloxDetector:
    """A model in YOLOX's format, with one network a thread: OpenCV's are not to be shared.

    Raises:
        TemperError: the weights are missing, have another checksum, are no model or one of another format.
    """

    def __init__(self, settings: Settings, threads: int | None = None) -> None:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong is said by an error
        self.settings, self._threads = settings, threads
        self._weights = np.fromfile(obtain(settings.weights, settings.sha256, "detect.weights"), np.uint8)
        self._classes = COCO if settings.classes == "coco" else tuple(settings.classes)
        self._grid, self._stride = grid(*settings.input_size)
        self._networks = threading.local()
        self._check()
        self.key = self._fingerprint()

    def detect(self, photos: Iterator[Photo]) -> Iterator[tuple[str, Boxes]]:
        """The boxes of each photo, in order: one photo a thread, each decoding while others infer."""
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # ours are enough: splitting single layers over cores wastes a quarter of them
        try:
            yield from ordered_map(self._detect, photos, self._threads)
        finally:
            cv2.setNumThreads(threads)

    def close(self) -> None:
        """Nothing is held."""

    def _detect(self, photo: Photo) -> tuple[str, Boxes]:
        pixels = detector.decode(photo)
        framed, scale = letterbox(pixels, *self.settings.input_size)
        output = forward(self._network(), framed)[0]
        return photo.image_id, self._boxes(output, scale, *pixels.shape[:2])

    def _boxes(self, output: Floats, scale: float, height: int, width: int) -> Boxes:
        """The boxes above the floor in one photo, (n, 5 + classes) -> best first."""
        output, cells = above_floor(output, self.settings.floor)
        centres = (output[:, :2] + self._grid[cells]) * self._stride[cells]
        halves = np.exp(output[:, 2:4]) * self._stride[cells] / 2
        limits = np.array([width, height] * 2, np.float32)
        corners = (np.concatenate([centres - halves, centres + halves], axis=1) / scale).clip(0, limits)
        scores = output[:, 4:5] * output[:, 5:]
        kept = []
        for number in np.flatnonzero((scores > self.settings.floor).any(axis=0)):
            inside = (scores[:, number] > self.settings.floor) & (corners[:, :2] < corners[:, 2:]).all(axis=1)
            rows = np.flatnonzero(inside)
            kept += [(row, number) for row in rows[suppress(corners[rows], scores[rows, number], OVERLAP)]]
        kept.sort(key=lambda place: -scores[place])
        rows, numbers = np.array(kept, np.intp).reshape(-1, 2).T
        return Boxes(corners[rows], scores[rows, numbers], [self._classes[number] for number in numbers])

    def _network(self) -> cv2.dnn.Net:
        if not hasattr(self._networks, "own"):
            self._networks.own = cv2.dnn.readNetFromONNX(self._weights)
        network: cv2.dnn.Net = self._networks.own
        return network

    def _check(self) -> None:
        """Runs one blank image, so an incompatible model fails before any photo is read."""
        place, (height, width) = self.settings.weights, self.settings.input_size
        expected = (1, len(self._grid), 5 + len(self._classes))
        try:
            received = forward(self._network(), np.zeros((height, width, 3), np.uint8)).shape
        except cv2.error as error:
            raise TemperError(
                f"{place}: expected an ONNX model in YOLOX's format for photos of {height}x{width}, "
                f"OpenCV says: {error.err or error.code}; correct detect.weights or detect.input_size"
            ) from None
        if received != expected:
            raise TemperError(
                f"{place}: expected a model in YOLOX's format with output {expected}, for photos of {height}x{width} "
                f"and {len(self._classes)} classes, received {received}; correct detect.input_size or detect.classes"
            )

    def _fingerprint(self) -> str:
        settings = self.settings.model_dump(include={"sha256", "input_size", "classes", "floor"})
        code = [Path(path).read_text(encoding="utf-8") for path in (__file__, photos.__file__)]
        code += [inspect.getsource(function) for function in (suppress, intersection_over_union, areas)]
        code = [detector.code_that_computes(text) for text in code]
        return hashlib.sha256(json.dumps([settings, cv2.__version__, code], sort_keys=True).encode()).hexdigest()[:16]


def forward(network: cv2.dnn.Net, framed: photos.Pixels) -> Floats:
    """(height, width, 3) RGB -> (1, n, 5 + classes)."""
    network.setInput(cv2.dnn.blobFromImage(framed, swapRB=True))
    output: Floats = network.forward()
    return output


def grid(height: int, width: int) -> tuple[Floats, Floats]:
    """The x and y of each cell, (n, 2), in cells of its grid, and the stride of this grid in pixels, (n, 1)."""
    cells, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((x.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def letterbox(pixels: photos.Pixels, height: int, width: int) -> tuple[photos.Pixels, float]:
    """A photo in the top left corner of (height, width, 3), and how many of its pixels one of the photo became."""
    scale = min(height / pixels.shape[0], width / pixels.shape[1])
    size = max(1, int(pixels.shape[1] * scale)), max(1, int(pixels.shape[0] * scale))  # rounded as YOLOX does
    framed = np.full((height, width, 3), BORDER, np.uint8)
    framed[: size[1], : size[0]] = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    return framed, scale


def above_floor(output: Floats, floor: float) -> tuple[Floats, npt.NDArray[np.intp]]:
    """The rows of an output whose objectness, which no score exceeds, is above the floor, and which cells they are."""
    cells = np.flatnonzero(output[:, 4] > floor)
    return output[cells], cells
