"""The detectors: what they find, that they see each photo once, and how they fail."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import scipy.io

from stages.detect import onnx, published, unseen
from stages.detect.detector import Detector, Photo
from stages.fetch import __main__ as fetch
from stages.fetch import source
from temper import boxes, params, photos, tables
from temper.base.errors import TemperError
from temper.boxes import Boxes
from tests.toys.detector import CLASSES, onnx_settings, write_other_model, write_toy_detector
from tests.toys.workspace import ROOT

CARS = "data/stanford_cars"
CAR_IN_BUS = [("car", 0.9, (4.0, 4.0, 20.0, 12.0)), ("bus", 0.8, (0.0, 0.0, 32.0, 30.0))]
MAIN = params.MainBox(classes=["car", "truck"], score=0.3, overlap=0.45, pick="largest", min_box=0)


def gray(level: int, height: int = 64, width: int = 64) -> bytes:
    return bytes(cv2.imencode(".png", np.full((height, width, 3), level, np.uint8))[1])


def write_table(folder: Path, data: list[bytes], published: list[Any] | None = None) -> tuple[list[str], pa.Table]:
    """A raw table in parts, and an images table of all that it holds."""
    raw = folder / "data/raw"
    raw.mkdir(parents=True)
    with tables.RawWriter(raw, part_bytes=2**20, row_group_bytes=2**17) as writer:
        for number, (image, box) in enumerate(zip(data, published or [None] * len(data), strict=True)):
            writer.append(fetch.describe(source.Photo(f"{number}.jpg", "a", None, image, box=box)))
    metadata = tables.read_raw_metadata(raw)
    columns = {name: metadata[name] for name in ("part", "row", "path")}
    columns["image_id"] = [digits[:16] for digits in metadata["sha256"].to_pylist()]
    columns |= {"class_name": ["a"] * len(metadata), "split": ["train"] * len(metadata)}
    return [str(raw)], pa.table(columns, schema=tables.IMAGES)


def toy(folder: Path, **changes: Any) -> onnx.OnnxDetector:
    path = write_toy_detector(folder / "toy.onnx", CAR_IN_BUS)
    return onnx.OnnxDetector(params.OnnxDetector(**onnx_settings(path, **changes)))


def yolox(shared: Path, threads: int | None = None, **changes: Any) -> onnx.OnnxDetector:
    """The detector of recipes/digits.yaml, with its weights from the folder of real ones."""
    settings = params.load(ROOT / "recipes/digits.yaml").detect.onnx
    assert settings is not None
    return onnx.OnnxDetector(
        settings.model_copy(update={"weights": str(shared / "weights/yolox_nano.onnx"), **changes}), threads
    )


def cars(shared: Path) -> list[tuple[bytes, tuple[float, ...]]]:
    """The photos and the devkit's boxes."""
    annotations = scipy.io.loadmat(shared / CARS / "devkit/cars_train_annos.mat")["annotations"][0]
    published = {
        str(row["fname"][0]): tuple(float(row[f"bbox_{side}"][0, 0]) for side in ("x1", "y1", "x2", "y2"))
        for row in annotations
    }
    return [(path.read_bytes(), published[path.name]) for path in sorted((shared / CARS / "cars_train").glob("*.jpg"))]


def as_photos(data: list[bytes]) -> Iterator[Photo]:
    return (Photo(str(number), f"{number}.jpg", image) for number, image in enumerate(data))


def overlap(one: Any, other: Any) -> float:
    pair = np.array([one, other], np.float32)
    return float(boxes.intersection_over_union(pair[0], pair[1:])[0])


def choose(inside: Boxes, data: bytes) -> int | None:
    height, width, _ = photos.decode(data).shape
    return boxes.choose(inside, height, width, MAIN)


def find_new(raw: tables.Folders, images: pa.Table, chosen: Detector) -> Iterator[tuple[str, Boxes]]:
    return unseen.find_boxes(raw, images, "test", lambda: chosen, params.Engine())


def rows(found: Iterator[tuple[str, Boxes]]) -> list[Any]:
    return [(image_id, b.corners.tolist(), b.scores.tolist(), list(b.classes)) for image_id, b in found]


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every pass through a network."""
    calls: list[int] = []
    forward = onnx.forward

    def counted(network: Any, framed: Any) -> Any:
        calls.append(1)
        return forward(network, framed)

    monkeypatch.setattr(onnx, "forward", counted)
    return calls


def test_the_cars_are_where_the_devkit_says(shared: Path) -> None:
    photos_and_boxes = cars(shared)
    found = dict(yolox(shared).detect(as_photos([data for data, _ in photos_and_boxes])))
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
    ((_, inside),) = yolox(shared).detect(as_photos([upright]))
    chosen = choose(inside, upright)
    assert chosen is not None and overlap(inside.corners[chosen], devkit) > 0.85


def test_the_boxes_are_the_same_with_any_number_of_threads(shared: Path) -> None:
    data = [data for data, _ in cars(shared)[:12]]
    alone = rows(yolox(shared, threads=1).detect(as_photos(data)))
    assert rows(yolox(shared, threads=3).detect(as_photos(data))) == alone
    assert rows(yolox(shared).detect(as_photos(data[5:6])))[0][1:] == alone[5][1:]
    for _, corners, scores, _ in alone:
        assert scores == sorted(scores, reverse=True) and min(scores) > 0.05 and np.all(np.array(corners) >= 0)


def test_boxes_come_back_in_pixels_of_the_photo(in_tmp_path: Path) -> None:
    """The model sees 32x32: a photo of 128x64 is shrunk to 32x16 in the top left corner."""
    for height, bus in ((128, [0, 0, 128, 120]), (64, [0, 0, 128, 64])):
        ((_, inside),) = toy(in_tmp_path).detect(as_photos([gray(255, height, width=128)]))
        assert list(inside.classes) == ["car", "bus"]
        assert inside.corners == pytest.approx(np.array([[16, 16, 80, 48], bus]), abs=1e-3)
        chosen = boxes.choose(inside, height, 128, MAIN)
        assert chosen is not None and inside.classes[chosen] == "car", "the bus is larger"


def test_what_the_detector_saw_once_it_is_not_shown_again(in_tmp_path: Path, forwards: list[int]) -> None:
    raw, images = write_table(in_tmp_path, [gray(level) for level in range(100, 160)])
    first = rows(find_new(raw, images.slice(0, 40), toy(in_tmp_path)))
    assert len(forwards) == 40 + 1, "one is the look at nothing"
    again = rows(find_new(raw, images, toy(in_tmp_path)))
    assert len(forwards) == 60 + 2
    assert again[:40] == first and len(again) == 60 and [row[0] for row in again] == images["image_id"].to_pylist()
    assert rows(find_new(raw, images, toy(in_tmp_path))) == again
    assert len(forwards) == 60 + 3
    toy_without_cache = toy(in_tmp_path, floor=0.06)
    assert rows(find_new(raw, images, toy_without_cache)) == again
    assert len(forwards) == 120 + 4, "another floor is another detector"


def test_equal_bytes_are_detected_once(in_tmp_path: Path, forwards: list[int]) -> None:
    raw, images = write_table(in_tmp_path, [gray(200), gray(210), gray(200)])
    assert len(list(find_new(raw, images, toy(in_tmp_path)))) == 2
    assert len(forwards) == 2 + 1


def test_the_cache_is_keyed_by_all_that_the_boxes_depend_on(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = toy(in_tmp_path).key
    assert toy(in_tmp_path).key == key
    moved = shutil.copy(in_tmp_path / "toy.onnx", in_tmp_path / "elsewhere.onnx")
    assert toy(in_tmp_path, weights=str(moved)).key == key, "weights are known by their bytes, not their place"
    assert toy(in_tmp_path, floor=0.1).key != key
    assert toy(in_tmp_path, classes=["bus", "car"]).key != key
    monkeypatch.setattr(cv2, "__version__", "4.0")
    assert toy(in_tmp_path).key != key


def test_a_photo_that_does_not_decode_ends_in_one_line_and_loses_nothing(
    in_tmp_path: Path, forwards: list[int]
) -> None:
    good = [gray(level) for level in range(100, 130)]
    raw, images = write_table(in_tmp_path, [*good[:20], b"\x89PNG\r\n\x1a\n broken", *good[20:]])
    with pytest.raises(TemperError, match=r"^detect: 20.jpg .*received a truncated or corrupt PNG; run dvc repro"):
        list(find_new(raw, images, toy(in_tmp_path)))
    before = len(forwards)
    mended = images.filter(pa.array([number != 20 for number in range(31)]))
    assert len(list(find_new(raw, mended, toy(in_tmp_path)))) == 30
    assert len(forwards) - before <= 10 + 1, "the twenty before it were kept"


def test_a_damaged_cache_is_named(in_tmp_path: Path) -> None:
    raw, images = write_table(in_tmp_path, [gray(200)])
    list(find_new(raw, images, toy(in_tmp_path)))
    (cache,) = (in_tmp_path / ".temper/boxes").iterdir()
    cache.write_bytes(b"something else" * 1000)
    with pytest.raises(TemperError, match=r"sqlite: expected a cache .* remove the file$"):
        list(find_new(raw, images, toy(in_tmp_path)))


def wrong_checksum(path: Path) -> dict[str, Any]:
    return onnx_settings(write_toy_detector(path, CAR_IN_BUS), sha256="0" * 64)


def corrupt(path: Path) -> dict[str, Any]:
    path.write_bytes(write_toy_detector(path, CAR_IN_BUS).read_bytes()[:300])
    return onnx_settings(path)


def no_model(path: Path) -> dict[str, Any]:
    path.write_bytes(b"hello")
    return onnx_settings(path)


def empty(path: Path) -> dict[str, Any]:
    path.write_bytes(b"")
    return onnx_settings(path)


def other_model(path: Path) -> dict[str, Any]:
    return onnx_settings(write_other_model(path))


def other_classes(path: Path) -> dict[str, Any]:
    return onnx_settings(write_toy_detector(path, CAR_IN_BUS), classes=[*CLASSES, "truck"])


def other_size(path: Path) -> dict[str, Any]:
    return onnx_settings(write_toy_detector(path, CAR_IN_BUS), input_size=64)


def missing(path: Path) -> dict[str, Any]:
    return onnx_settings(write_toy_detector(path, CAR_IN_BUS), weights="nowhere.onnx")


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
        (missing, "nowhere.onnx: expected a file or an http"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_weights_end_in_one_line(
    in_tmp_path: Path, settings: Callable[[Path], dict[str, Any]], message: str
) -> None:
    with pytest.raises(TemperError, match=message) as refused:
        onnx.OnnxDetector(params.OnnxDetector(**settings(in_tmp_path / "model.onnx")))
    assert "\n" not in str(refused.value)


def test_published_boxes_are_clamped_and_photos_without_one_stay_whole(in_tmp_path: Path) -> None:
    data = [gray(1), gray(2), gray(3), gray(1)]
    raw, images = write_table(in_tmp_path, data, [(1, 2, 30, 40), None, (-5, 3, 70, 64.5), (2, 2, 9, 9)])
    found = dict(published.find_boxes(raw, images, params.Nothing()))
    ids = images["image_id"].to_pylist()
    assert list(found) == [ids[0], ids[2]]
    assert found[ids[0]].corners.tolist() == [[1, 2, 30, 40], [2, 2, 9, 9]], "published twice, with other boxes"
    assert found[ids[2]].corners.tolist() == [[0, 3, 64, 64]]
    assert found[ids[2]].scores.tolist() == [1] and list(found[ids[2]].classes) == [None]


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (None, "expected a source that publishes boxes, this one has none; choose another"),
        ((70, 0, 90, 20), r"expected a box inside the photo of 64x64, received \[70.0, 0.0, 90.0, 20.0\] for 1.jpg"),
        ((9, 0, 9, 20), "expected a box inside the photo"),
    ],
)
def test_published_boxes_that_are_none_end_in_one_line(in_tmp_path: Path, box: Any, message: str) -> None:
    raw, images = write_table(in_tmp_path, [gray(1), gray(2)], [box and (0, 0, 9, 9), box])
    with pytest.raises(TemperError, match=message):
        list(published.find_boxes(raw, images, params.Nothing()))


def write_stage(folder: Path, settings: dict[str, Any], data: list[bytes]) -> pa.Table:
    """What `python -m stages.detect` needs in a working folder of its own."""
    _, images = write_table(folder, data)
    (folder / "data/auxiliary").mkdir()
    with tables.RawWriter(folder / "data/auxiliary"):
        pass  # no second source
    tables.write(folder / "data/images.parquet", tables.IMAGES, {name: images[name] for name in images.column_names})
    values = params.load(ROOT / "params.yaml").model_dump(mode="json")
    values["detect"] |= {"detector": "onnx", "onnx": settings}
    (folder / "params.yaml").write_text(json.dumps(values), encoding="utf-8")
    return images


def run_stage(folder: Path) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    return subprocess.Popen(
        [sys.executable, "-m", "stages.detect"],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def detected(folder: Path) -> int:
    """How many images the caches hold."""
    count = 0
    for path in folder.glob(".temper/boxes/*.sqlite"):
        with sqlite3.connect(path) as database:
            count += database.execute("SELECT count(*) FROM boxes").fetchone()[0]
    return count


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(in_tmp_path: Path, shared: Path) -> None:
    weights = shared / "weights/yolox_nano.onnx"
    settings = yolox(shared).settings.model_dump(mode="json") | {"weights": str(weights)}
    data = [image + bytes([number]) for number in range(4) for image, _ in cars(shared)]
    write_stage(in_tmp_path, settings, data)
    killed = run_stage(in_tmp_path)
    while not detected(in_tmp_path):
        assert killed.poll() is None, killed.stdout and killed.stdout.read()
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    kept = detected(in_tmp_path)
    assert 0 < kept < 240 and not (in_tmp_path / "data/boxes.parquet").exists()
    output, _ = run_stage(in_tmp_path).communicate()
    assert f"onnx: {240 - kept} images detected now, {kept} before" in output
    boxes_sha256 = hashlib.sha256((in_tmp_path / "data/boxes.parquet").read_bytes()).hexdigest()
    shutil.rmtree(in_tmp_path / ".temper")
    output, _ = run_stage(in_tmp_path).communicate()
    assert "onnx: 240 images detected now, 0 before" in output
    assert hashlib.sha256((in_tmp_path / "data/boxes.parquet").read_bytes()).hexdigest() == boxes_sha256


def test_the_stage_says_what_is_wrong_in_one_line(in_tmp_path: Path) -> None:
    write_stage(in_tmp_path, corrupt(in_tmp_path / "model.onnx"), [gray(200)])
    process = run_stage(in_tmp_path)
    output, _ = process.communicate()
    assert process.returncode == 1 and output.startswith("error: ") and output.count("\n") == 1, output
