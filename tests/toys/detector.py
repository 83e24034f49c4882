"""Detectors in YOLOX's format of a few hundred bytes, written without the package `onnx`; and helpers to run them."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stages.detect import unseen
from stages.detect.detector import Detector, Photo
from stages.detect.detectors.yolox import Settings, YoloxDetector
from temper.detections import Boxes
from temper.settings.detect import EngineSettings
from temper.yolox import grid

SIDE = 32  # pixels of its input
CLASSES = ["car", "bus"]
CAR_IN_BUS = [("car", 0.9, (4.0, 4.0, 20.0, 12.0)), ("bus", 0.8, (0.0, 0.0, 32.0, 30.0))]  # the bus is larger

# Of onnx.proto: the numbers of the fields that are written here.
ONE_FLOAT, ONE_INT64 = 1, 7


def field(number: int, value: bytes | str | int) -> bytes:
    """A field of a protobuf message: a varint, or anything with a length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    more = value >> 7
    return bytes([value & 127 | 128]) + varint(more) if more else bytes([value])


def tensor(name: str, values: np.ndarray) -> bytes:
    kind = ONE_INT64 if values.dtype == np.int64 else ONE_FLOAT
    dims = b"".join(field(1, length) for length in values.shape)
    return dims + field(2, kind) + field(8, name) + field(9, values.tobytes())


def node(kind: str, inputs: Sequence[str], output: str) -> bytes:
    return b"".join(field(1, name) for name in inputs) + field(2, output) + field(3, output) + field(4, kind)


def value_info(name: str, shape: Sequence[int]) -> bytes:
    dims = b"".join(field(1, field(1, length)) for length in shape)
    return field(1, name) + field(2, field(1, field(1, ONE_FLOAT) + field(2, dims)))


def model(nodes: Sequence[bytes], tensors: Sequence[bytes], output_shape: Sequence[int]) -> bytes:
    graph = b"".join(field(1, inside) for inside in nodes) + field(2, "toy")
    graph += b"".join(field(5, inside) for inside in tensors)
    graph += field(11, value_info("images", (1, 3, SIDE, SIDE))) + field(12, value_info("output", output_shape))
    return field(1, 7) + field(8, field(1, "") + field(2, 13)) + field(7, graph)


def write_toy_detector(path: Path, objects: Sequence[tuple[str, float, tuple[float, float, float, float]]]) -> Path:
    """A model that sees the same objects in every photo that is brighter than black: (class, score, box in its input).

    Scores are proportional to the photo's mean: as given at 255, and 0 at 0.
    """
    cells, strides = grid(SIDE, SIDE)
    output = np.zeros((len(cells), 5 + len(CLASSES)), np.float32)
    brightness = np.zeros_like(output)
    for number, (name, score, (x1, y1, x2, y2)) in enumerate(objects):
        stride = strides[number, 0]
        output[number, :2] = np.array([(x1 + x2) / 2, (y1 + y2) / 2]) / stride - cells[number]
        output[number, 2:4] = math.log((x2 - x1) / stride), math.log((y2 - y1) / stride)
        brightness[number, 4] = score / 255
        output[number, 5 + CLASSES.index(name)] = 1
    weights = np.repeat(brightness.reshape(1, -1) / 3, 3, axis=0)  # (3, n): each channel's mean counts a third
    nodes = [
        node("GlobalAveragePool", ["images"], "means"),
        node("Flatten", ["means"], "flat"),
        node("MatMul", ["flat", "weights"], "bright"),
        node("Add", ["bright", "bias"], "all"),
        node("Reshape", ["all", "shape"], "output"),
    ]
    shape = (1, *output.shape)
    tensors = [tensor("weights", weights), tensor("bias", output.reshape(1, -1)), tensor("shape", np.array(shape))]
    path.write_bytes(model(nodes, tensors, shape))
    return path


def write_other_model(path: Path) -> Path:
    """A model that is no detector: its output is its input."""
    path.write_bytes(model([node("Relu", ["images"], "output")], [], (1, 3, SIDE, SIDE)))
    return path


def yolox_section(path: Path, **changes: Any) -> dict[str, Any]:
    """The section `detect` of params.yaml for a model of this module."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    section = {"weights": str(path), "sha256": sha256, "input_size": SIDE, "classes": CLASSES, "floor": 0.05}
    return {"detector": "yolox", **section, **changes}


def toy_detector(folder: Path, **changes: Any) -> YoloxDetector:
    """A detector that sees CAR_IN_BUS; its model is written into `folder`."""
    path = write_toy_detector(folder / "toy.onnx", CAR_IN_BUS)
    return YoloxDetector(Settings.model_validate(yolox_section(path, **changes)))


def nano_settings(shared: Path, **changes: Any) -> Settings:
    """The default detector, YOLOX-Nano, with its weights from the folder of real ones."""
    section = {"detector": "yolox", "weights": str(shared / "weights/yolox_nano.onnx")}
    return Settings.model_validate(section | changes)


def as_photos(data: Sequence[bytes]) -> Iterator[Photo]:
    """Encoded photos as input for a detector, with their numbers as image_ids."""
    return (Photo(str(number), f"{number}.jpg", image) for number, image in enumerate(data))


def find_new(images: pa.Table, chosen: Detector) -> Iterator[tuple[str, Boxes]]:
    """The boxes of each image; the detector runs only on new photos."""
    return unseen.find_boxes(images, "test", lambda: chosen, EngineSettings(detector="test"))


def rows(found: Iterator[tuple[str, Boxes]]) -> list[Any]:
    """Boxes as plain values that can be compared."""
    return [(image_id, b.corners.tolist(), b.scores.tolist(), list(b.classes)) for image_id, b in found]
