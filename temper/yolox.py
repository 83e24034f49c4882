"""Runs a detector in YOLOX's format (Ge et al., arXiv:2107.08430) with OpenCV's own engine.

input: (1, 3, height, width), BGR, float32, 0-255; the photo shrunk into the top left corner, the rest 114
output: (1, n, 5 + classes): for each cell of the grids of strides 8, 16 and 32 its box, objectness and class scores
"""

import threading
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from temper.base.errors import TemperError
from temper.detections import Boxes, suppress
from temper.photos import Pixels

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
BORDER = 114  # the gray level that fills the space beside the photo
OVERLAP = 0.65  # of the suppression within each class, as in YOLOX's evaluation; `main_object` suppresses across them

NANO = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_nano.onnx"
NANO_SHA256 = "695e750a5d5754bb5a8d5325643b59282191a7e7a564e435a415fd3c578eab14"
NANO_INPUT = (416, 416)  # height and width
FLOOR = 0.05  # boxes below this score are not kept, unless another floor is chosen

Floats = npt.NDArray[np.float32]


class YoloxModel:
    """The model in an ONNX file. Each thread has its own network, because OpenCV's networks cannot be shared.

    Args:
        weights: a local path.
        input_size: the height and width that the model was exported for, in pixels.
        classes: the names of its classes, in order.
        floor: boxes with a lower score are left out; 0 to 1.
        place: the name of the weights in messages; `None`: their path.

    Raises:
        TemperError: the file is not a model, or one of another format.
    """

    def __init__(
        self,
        weights: Path,
        input_size: tuple[int, int] = NANO_INPUT,
        classes: Sequence[str] = COCO,
        floor: float = FLOOR,
        place: str | None = None,
    ) -> None:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # problems are reported by errors
        self._place, self.input_size = place or str(weights), input_size
        self._weights = np.fromfile(weights, np.uint8)
        self._classes, self._floor = tuple(classes), floor
        self._grid, self._stride = grid(*input_size)
        self._networks = threading.local()
        self._check()

    def boxes(self, pixels: Pixels) -> Boxes:
        """The boxes above the floor in one upright photo at full size; may be called by several threads at once.

        The same photo gives the same bits only if OpenCV uses one thread (`cv2.setNumThreads(1)`), as in `detect`.
        """
        framed, scale = letterbox(pixels, *self.input_size)
        output = forward(self._network(), framed)[0]
        return self._boxes(output, scale, *pixels.shape[:2])

    def _boxes(self, output: Floats, scale: float, height: int, width: int) -> Boxes:
        """The boxes above the floor in one photo, best first, from the network's output, (n, 5 + classes).

        Args:
            scale: the scale by which the photo was shrunk.
            height, width: of the photo, in pixels.
        """
        output, cells = above_floor(output, self._floor)
        centres = (output[:, :2] + self._grid[cells]) * self._stride[cells]
        halves = np.exp(output[:, 2:4]) * self._stride[cells] / 2
        limits = np.array([width, height] * 2, np.float32)
        corners = (np.concatenate([centres - halves, centres + halves], axis=1) / scale).clip(0, limits)
        scores = output[:, 4:5] * output[:, 5:]
        kept = []
        for number in np.flatnonzero((scores > self._floor).any(axis=0)):
            inside = (scores[:, number] > self._floor) & (corners[:, :2] < corners[:, 2:]).all(axis=1)
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
        place, (height, width) = self._place, self.input_size
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


def forward(network: cv2.dnn.Net, framed: Pixels) -> Floats:
    """Runs a network on one framed photo: (height, width, 3) RGB -> (1, n, 5 + classes)."""
    network.setInput(cv2.dnn.blobFromImage(framed, swapRB=True))
    output: Floats = network.forward()
    return output


def grid(height: int, width: int) -> tuple[Floats, Floats]:
    """For each cell: its x and y in cells of its grid, (n, 2), and the stride of that grid in pixels, (n, 1)."""
    cells, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((x.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def letterbox(pixels: Pixels, height: int, width: int) -> tuple[Pixels, float]:
    """Scales a photo to fit into the top left corner of (height, width, 3); returns that image and the scale."""
    scale = min(height / pixels.shape[0], width / pixels.shape[1])
    size = max(1, int(pixels.shape[1] * scale)), max(1, int(pixels.shape[0] * scale))  # rounded as YOLOX does
    framed = np.full((height, width, 3), BORDER, np.uint8)
    framed[: size[1], : size[0]] = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    return framed, scale


def above_floor(output: Floats, floor: float) -> tuple[Floats, npt.NDArray[np.intp]]:
    """The rows of an output with an objectness above the floor, and the numbers of their cells.

    No score of a row exceeds its objectness, so this loses no box.
    """
    cells = np.flatnonzero(output[:, 4] > floor)
    return output[cells], cells
