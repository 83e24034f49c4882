"""detect and pack as their users run them: what runs a detector, what only packs, and what is seen of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from conftest import Workspace, ran, toy_params, toy_photo, write_toy_photos
from stages.pack import find_main_objects
from temper import boxes, params
from temper.boxes import Boxes
from temper.errors import TemperError
from temper.packs import Pack
from temper.preparation import crop
from test_detect import gray, write_table
from toy_detector import onnx_settings, write_toy_detector

# The toy photos are dark: a third of these scores is left of them. The bus is found surer and is larger.
CAR, BUS = (8.0, 8.0, 24.0, 24.0), (0.0, 0.0, 32.0, 30.0)
OBJECTS = [("car", 1.8, CAR), ("bus", 2.4, BUS)]


@pytest.fixture(scope="module")
def detected(make_workspace: Callable[[dict[str, Any]], Workspace]) -> Workspace:
    """A workspace with its photos inside, in which everything up to `pack` ran with a toy detector; copy it."""
    workspace = make_workspace(toy_params(Path("data/photos")))
    write_toy_photos(workspace.folder / "data/photos", per_class=20)
    model = write_toy_detector(workspace.folder / "toy.onnx", OBJECTS)
    workspace.set(detect__detector="onnx", detect__onnx=onnx_settings(model, weights="toy.onnx"), pack__box__min_box=0)
    output = workspace.run("dvc repro pack")
    assert "onnx: 60 images detected now, 0 before" in output
    assert "60 of them cropped to a box" in output
    return workspace


@pytest.fixture
def workspace(detected: Workspace, tmp_path: Path) -> Workspace:
    return detected.copy(tmp_path / "workspace")


def shares(workspace: Workspace) -> dict[str, float]:
    text = (workspace.folder / "metrics/pack/metrics.json").read_text(encoding="utf-8")
    values: dict[str, float] = json.loads(text)
    return values


def test_a_detector_toggled_off_and_on_again_does_not_run(workspace: Workspace) -> None:
    workspace.set(detect__detector="none")
    assert ran(workspace.run("dvc repro pack")) == ["detect", "pack"]
    assert shares(workspace) == {"without_box": 1, "box_too_small": 0}
    workspace.set(detect__detector="onnx")
    assert ran(workspace.run("dvc repro pack")) == []
    assert shares(workspace) == {"without_box": 0, "box_too_small": 0}


@pytest.mark.parametrize(
    "change",
    [
        {"pack__margin": 0.3},
        {"pack__box__score": 0.4},
        {"pack__box__pick": "highest_score"},
        {"pack__box__classes": ["bus"]},
        {"image_size": 24},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_only_reads_boxes_runs_no_detector(workspace: Workspace, change: dict[str, Any]) -> None:
    workspace.set(**change)
    assert ran(workspace.run("dvc repro pack")) == ["pack"]


def test_only_new_photos_are_detected(workspace: Workspace) -> None:
    (workspace.folder / "data/photos/ant/new.png").write_bytes(toy_photo(0, 999))
    output = workspace.run("dvc repro pack")
    assert ran(output) == ["fetch", "normalize", "detect", "pack"]
    assert "onnx: 1 images detected now, 60 before" in output


def test_an_edited_floor_detects_again(workspace: Workspace) -> None:
    workspace.set(detect__onnx__floor=0.1)
    assert "onnx: 60 images detected now, 0 before" in workspace.run("dvc repro detect")


def test_forced_runs_write_the_same_bytes(workspace: Workspace) -> None:
    names = ("data/boxes.parquet", "data/packed/train/images-00000.npy", "metrics/pack/boxes.png")
    before = [(workspace.folder / name).read_bytes() for name in names]
    workspace.run("rm -r .temper")
    workspace.run("dvc repro --force --single-item detect pack")
    assert [(workspace.folder / name).read_bytes() for name in names] == before


def test_wrong_weights_stop_repro_in_one_line_and_the_boxes_stay(workspace: Workspace) -> None:
    (workspace.folder / "toy.onnx").write_bytes(b"damaged")
    workspace.set(detect__onnx__floor=0.1)
    output = workspace.run("dvc repro detect", code=None)
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "toy.onnx: expected sha256" in errors[0] and "Traceback" not in output, output
    workspace.set(detect__onnx__floor=0.05)
    assert ran(workspace.run("dvc repro detect")) == []


def test_images_are_cropped_to_the_chosen_box(workspace: Workspace) -> None:
    """Toy photos have 24 pixels a side, the model's input 32: the car is from 6 to 18, and its margin 1.2 wide."""
    photo = cv2.cvtColor(cv2.imdecode(np.frombuffer(toy_photo(0, 0), np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert crop(photo, (6, 6, 18, 18), 0.1).tolist() == photo[4:20, 4:20].tolist()
    workspace.set(image_size=16)
    workspace.run("dvc repro pack")
    packed = [Pack(workspace.folder / "data/packed" / split) for split in ("train", "validation", "test")]
    images = np.concatenate([pack.images(np.arange(len(pack))) for pack in packed])
    assert any(np.array_equal(image, photo[4:20, 4:20]) for image in images)


def test_small_boxes_leave_the_image_whole(workspace: Workspace) -> None:
    workspace.set(pack__box__min_box=13)
    assert "0 of them cropped to a box" in workspace.run("dvc repro pack")
    assert shares(workspace) == {"without_box": 0, "box_too_small": 1}
    workspace.set(pack__box__min_box=12)
    assert "60 of them cropped to a box" in workspace.run("dvc repro pack")


def test_misspelt_classes_are_named(workspace: Workspace) -> None:
    workspace.set(pack__box__classes=["cars"])
    output = workspace.run("dvc repro pack", code=None)
    assert "error: pack.box.classes: expected some of what was detected (bus, car), received cars" in output


def test_the_sheet_of_boxes_is_a_plot(workspace: Workspace) -> None:
    workspace.run("dvc plots show metrics/pack/boxes.png")
    sheet = cv2.imread(str(workspace.folder / "metrics/pack/boxes.png"))
    assert sheet is not None and sheet.shape[1] == 4 * (2 * 164 + 8)
    orange = (sheet == (0, 120, 255)).all(axis=2).sum()
    assert orange > 24 * 4 * 60, "three kinds of eight photos, each with a box"


def test_the_main_object_knows_its_share_of_the_photo(in_tmp_path: Path) -> None:
    _, images = write_table(in_tmp_path, [gray(1, 50, 100), gray(2, 50, 100)])
    sizes = images.append_column("height", [[50, 50]]).append_column("width", [[100, 100]])
    one = Boxes(np.array([[0, 0, 50, 50]], np.float32), np.array([0.5], np.float32), ["car"])
    boxes.write("boxes.parquet", "onnx", iter([(images["image_id"][1].as_py(), one)]))
    settings = params.MainBox(classes=["car"], score=0.3, overlap=0.5, pick="largest", min_box=0)
    (found,) = find_main_objects("boxes.parquet", images, sizes, settings).items()
    assert found[0] == images["image_id"][1].as_py()
    assert found[1].share == 0.5 and found[1].class_name == "car" and found[1].box == (0, 0, 50, 50)
    with pytest.raises(TemperError, match=r"expected some of what was detected \(car\), received bus"):
        find_main_objects("boxes.parquet", images, sizes, settings.model_copy(update={"classes": ["bus"]}))
