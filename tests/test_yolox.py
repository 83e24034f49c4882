"""`detect.detector: yolox`: what it finds, and how wrong weights end."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from stages.detect.detectors.yolox import Settings, YoloxDetector
from temper import detections, main_object, photos, yolox
from temper.base.errors import TemperError
from temper.detections import Boxes
from temper.settings.pack import MainBox
from tests.toys.cars import cars
from tests.toys.detector import (
    CAR_IN_BUS,
    CLASSES,
    as_photos,
    nano_settings,
    rows,
    toy_detector,
    write_other_model,
    write_toy_detector,
    yolox_section,
)
from tests.toys.tables import gray

MAIN = MainBox(classes=["car", "truck"], score=0.3, overlap=0.45, pick="largest", min_box=0)


def overlap(one: Any, other: Any) -> float:
    pair = np.array([one, other], np.float32)
    return float(detections.intersection_over_union(pair[0], pair[1:])[0])


def choose(inside: Boxes, data: bytes) -> int | None:
    height, width, _ = photos.decode(data).shape
    return main_object.choose(inside, height, width, MAIN)


def test_the_cars_are_where_the_devkit_says(shared: Path) -> None:
    photos_and_boxes = cars(shared)
    found = dict(YoloxDetector(nano_settings(shared)).detect(as_photos([data for data, _ in photos_and_boxes])))
    overlaps = []
    for number, (data, devkit) in enumerate(photos_and_boxes):
        inside = found[str(number)]
        chosen = choose(inside, data)
        overlaps.append(0.0 if chosen is None else overlap(inside.corners[chosen], devkit))
    assert len(overlaps) == 60
    assert np.mean(overlaps) >= 0.92 and sum(value >= 0.75 for value in overlaps) >= 59, overlaps


def test_a_rotated_photo_has_boxes_where_a_viewer_shows_the_car(shared: Path) -> None:
    data, devkit = cars(shared)[0]
    turned = cv2.rotate(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.ROTATE_90_COUNTERCLOCKWISE)
    jpeg = bytes(cv2.imencode(".jpg", turned, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])
    orientation_6 = bytes.fromhex("ffe1 0022 457869660000 4d4d002a00000008 0001 0112 0003 00000001 0006 0000 00000000")
    upright = jpeg[:2] + orientation_6 + jpeg[2:]
    assert photos.decode(upright).shape == photos.decode(data).shape
    ((_, inside),) = YoloxDetector(nano_settings(shared)).detect(as_photos([upright]))
    chosen = choose(inside, upright)
    assert chosen is not None and overlap(inside.corners[chosen], devkit) > 0.85


def test_the_boxes_are_the_same_with_any_number_of_threads(shared: Path) -> None:
    data = [data for data, _ in cars(shared)[:12]]
    alone = rows(YoloxDetector(nano_settings(shared), threads=1).detect(as_photos(data)))
    assert rows(YoloxDetector(nano_settings(shared), threads=3).detect(as_photos(data))) == alone
    assert rows(YoloxDetector(nano_settings(shared)).detect(as_photos(data[5:6])))[0][1:] == alone[5][1:]
    for _, corners, scores, _ in alone:
        assert scores == sorted(scores, reverse=True) and min(scores) > 0.05 and np.all(np.array(corners) >= 0)


def test_boxes_come_back_in_pixels_of_the_photo(in_tmp_path: Path) -> None:
    """The model sees 32x32: a photo of 128x64 is shrunk to 32x16 in the top left corner."""
    for height, bus in ((128, [0, 0, 128, 120]), (64, [0, 0, 128, 64])):
        ((_, inside),) = toy_detector(in_tmp_path).detect(as_photos([gray(255, height, width=128)]))
        assert list(inside.classes) == ["car", "bus"]
        assert inside.corners == pytest.approx(np.array([[16, 16, 80, 48], bus]), abs=1e-3)
        chosen = main_object.choose(inside, height, 128, MAIN)
        assert chosen is not None and inside.classes[chosen] == "car", "the bus is larger"


@pytest.mark.parametrize(
    ("module", "old", "new", "is_another"),
    [
        (yolox, "BORDER = 114", "BORDER = 115", True),
        (yolox, "rounded as YOLOX does", "a comment", False),
        (yolox, '"""Runs a detector in YOLOX', '"""Another docstring', False),
        (yolox, "from collections.abc import Sequence\n", "from collections.abc import Sequence  # why\n", False),
        (photos, "import cv2", "import cv2; another = 1", True),
        (photos, "import cv2", "import cv2  # a comment", False),
    ],
    ids=["border", "comment", "docstring", "comment on an import", "decoding", "comment on decoding"],
)
def test_the_cache_is_keyed_by_the_code_that_computes(
    in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, old: str, new: str, is_another: bool
) -> None:
    """What is said of a setting, or of the code, shows no photo to the detector again."""
    key = toy_detector(in_tmp_path).key
    text = Path(module.__file__).read_text(encoding="utf-8")
    assert old in text
    (in_tmp_path / "edited.py").write_text(text.replace(old, new), encoding="utf-8")
    monkeypatch.setattr(module, "__file__", str(in_tmp_path / "edited.py"))
    assert (toy_detector(in_tmp_path).key != key) is is_another


def test_the_cache_is_keyed_by_all_that_the_boxes_depend_on(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = toy_detector(in_tmp_path).key
    assert toy_detector(in_tmp_path).key == key
    moved = shutil.copy(in_tmp_path / "toy.onnx", in_tmp_path / "elsewhere.onnx")
    assert toy_detector(in_tmp_path, weights=str(moved)).key == key, "weights are known by their bytes, not their place"
    assert toy_detector(in_tmp_path, floor=0.1).key != key
    assert toy_detector(in_tmp_path, classes=["bus", "car"]).key != key
    monkeypatch.setattr(cv2, "__version__", "4.0")
    assert toy_detector(in_tmp_path).key != key


def wrong_checksum(path: Path) -> dict[str, Any]:
    return yolox_section(write_toy_detector(path, CAR_IN_BUS), sha256="0" * 64)


def corrupt(path: Path) -> dict[str, Any]:
    path.write_bytes(write_toy_detector(path, CAR_IN_BUS).read_bytes()[:300])
    return yolox_section(path)


def no_model(path: Path) -> dict[str, Any]:
    path.write_bytes(b"hello")
    return yolox_section(path)


def empty(path: Path) -> dict[str, Any]:
    path.write_bytes(b"")
    return yolox_section(path)


def other_model(path: Path) -> dict[str, Any]:
    return yolox_section(write_other_model(path))


def other_classes(path: Path) -> dict[str, Any]:
    return yolox_section(write_toy_detector(path, CAR_IN_BUS), classes=[*CLASSES, "truck"])


def other_size(path: Path) -> dict[str, Any]:
    return yolox_section(write_toy_detector(path, CAR_IN_BUS), input_size=64)


def missing(path: Path) -> dict[str, Any]:
    return yolox_section(write_toy_detector(path, CAR_IN_BUS), weights="nowhere.onnx")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (wrong_checksum, "expected sha256 0000"),
        (corrupt, "expected an ONNX model in YOLOX's format for photos of 32x32, OpenCV says: "),
        (no_model, "expected an ONNX model in YOLOX's format for photos of 32x32, OpenCV says: "),
        (empty, "expected an ONNX model in YOLOX's format for photos of 32x32"),
        (other_model, r"output \(1, 21, 7\), for photos of 32x32 and 2 classes, received \(1, 3, 32, 32\); correct"),
        (other_classes, r"output \(1, 21, 8\), for photos of 32x32 and 3 classes, received \(1, 21, 7\); correct"),
        (other_size, r"output \(1, 84, 7\), for photos of 64x64 and 2 classes, received \(1, 21, 7\); correct"),
        (missing, "^detect.weights: expected a file or an http.* URL; nowhere.onnx: expected a file or folder, found"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_weights_end_in_one_line(
    in_tmp_path: Path, settings: Callable[[Path], dict[str, Any]], message: str
) -> None:
    with pytest.raises(TemperError, match=message) as refused:
        YoloxDetector(Settings.model_validate(settings(in_tmp_path / "model.onnx")))
    assert "\n" not in str(refused.value)
