"""detect and pack as their users run them: what runs a detector, what only packs, and what is seen of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from stages.detect.detectors.yolox import Settings
from temper.packs import Pack
from temper.preparation import crop
from tests.toys.detector import write_toy_detector, yolox_section
from tests.toys.photos import toy_photo, write_toy_photos
from tests.toys.workspace import Workspace, ran, toy_params

pytestmark = pytest.mark.slow  # DVC runs the pipeline some thirty times

# The toy photos are dark: a third of these scores is left of them. The bus is found surer and is larger.
CAR, BUS = (8.0, 8.0, 24.0, 24.0), (0.0, 0.0, 32.0, 30.0)
OBJECTS = [("car", 1.8, CAR), ("bus", 2.4, BUS)]

# Put at the end of the detector's code in a workspace: a line in a file for each pass through the network.
COUNTED = """

_forward = forward


def forward(network: cv2.dnn.Net, framed: Pixels) -> Floats:
    with Path(".temper/forwards").open("a") as file:
        file.write("1\\n")
    return _forward(network, framed)
"""


@pytest.fixture(scope="module")
def detected(make_workspace: Callable[[dict[str, Any]], Workspace]) -> Workspace:
    """A workspace with its photos inside, in which everything up to `pack` ran with a toy detector; copy it."""
    workspace = make_workspace(toy_params(Path("data/photos")))
    write_toy_photos(workspace.folder / "data/photos", per_class=20)
    code = workspace.folder / "temper/yolox.py"
    code.write_text(code.read_text(encoding="utf-8") + COUNTED, encoding="utf-8")
    model = write_toy_detector(workspace.folder / "toy.onnx", OBJECTS)
    workspace.set(detect=yolox_section(model, weights="toy.onnx"), pack__box={"classes": ["car"], "min_box": 0})
    output = workspace.run("dvc repro pack")
    assert "yolox: 60 images detected now, 0 before" in output
    assert "60 of them cropped to a box" in output
    assert forwards(workspace) == 60 + 1, "one is the blank image"
    workspace.commit("detected")
    return workspace


@pytest.fixture
def workspace(detected: Workspace, tmp_path: Path) -> Workspace:
    return detected.copy(tmp_path / "workspace")


def forwards(workspace: Workspace) -> int:
    """How many images the network of the detector has seen in this workspace, ever."""
    return len((workspace.folder / ".temper/forwards").read_text(encoding="utf-8").splitlines())


def shares(workspace: Workspace) -> dict[str, float]:
    text = (workspace.folder / "metrics/pack/metrics.json").read_text(encoding="utf-8")
    values: dict[str, float] = json.loads(text)
    return values


def test_a_detector_toggled_off_and_on_again_does_not_run(workspace: Workspace) -> None:
    section = yolox_section(workspace.folder / "toy.onnx", weights="toy.onnx")
    workspace.set(detect={"detector": "none"})
    assert ran(workspace.run("dvc repro pack")) == ["detect", "pack"]
    assert shares(workspace) == {"without_box": 1, "box_too_small": 0}
    workspace.set(detect=section)
    assert ran(workspace.run("dvc repro pack")) == []
    assert shares(workspace) == {"without_box": 0, "box_too_small": 0}
    assert forwards(workspace) == 61


def test_a_detector_is_toggled_by_an_experiment(workspace: Workspace, shared: Path) -> None:
    """Law 6, typed as its users type it: the default detector, none, and the default detector again."""
    downloads = workspace.folder / ".temper/downloads"
    downloads.mkdir()
    shutil.copy(shared / "weights/yolox_nano.onnx", downloads / Settings(detector="yolox").sha256)
    workspace.set(detect={"detector": "none"}, pack__box={})
    workspace.commit("without a detector")
    assert ran(workspace.run("dvc exp run pack")) == ["detect", "pack"]
    assert ran(workspace.run("dvc exp run pack -S detect.detector=yolox")) == ["detect", "pack"]
    seen = forwards(workspace)
    assert seen == 61 + 61, "another model sees every photo"
    assert ran(workspace.run("dvc exp run pack -S detect.detector=none")) == []
    assert ran(workspace.run("dvc exp run pack -S detect.detector=yolox")) == []
    assert forwards(workspace) == seen


def test_a_detector_with_keys_of_its_own_is_toggled_by_taking_them_away(workspace: Workspace) -> None:
    """A key that the chosen detector does not use is refused, by its name, before any work."""
    output = workspace.run("dvc exp run pack -S detect.detector=none", code=None)
    assert "error: params.yaml: detect.weights is a setting of detectron2 and yolox, not of none: remove it" in output
    keys = [key for key in yolox_section(workspace.folder / "toy.onnx") if key != "detector"]
    removed = " ".join(f"-S '~detect.{key}'" for key in keys)
    workspace.run("git checkout params.yaml")
    assert ran(workspace.run(f"dvc exp run pack -S detect.detector=none {removed}")) == ["detect", "pack"]
    workspace.run("git checkout params.yaml")
    assert ran(workspace.run("dvc exp run pack")) == []
    assert forwards(workspace) == 61


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
    assert forwards(workspace) == 61


def test_a_rule_that_chooses_the_same_boxes_changes_no_more_than_the_card(workspace: Workspace) -> None:
    """The packed images are equal bytes, so nothing is embedded again; the model must know the rule all the same."""
    assert ran(workspace.run("dvc repro warm_up")) == ["backbone", "embed", "warm_up"]
    workspace.set(pack__box__score=0.35)
    assert ran(workspace.run("dvc repro warm_up")) == ["pack", "warm_up"]
    assert forwards(workspace) == 61


def test_only_new_photos_are_detected(workspace: Workspace) -> None:
    (workspace.folder / "data/photos/ant/new.png").write_bytes(toy_photo(0, 999))
    output = workspace.run("dvc repro pack")
    assert ran(output) == ["fetch@photos", "normalize", "detect", "pack"]
    assert "yolox: 1 images detected now, 60 before" in output
    assert forwards(workspace) == 61 + 1 + 1


def test_an_edited_floor_detects_again(workspace: Workspace) -> None:
    workspace.set(detect__floor=0.1)
    assert "yolox: 60 images detected now, 0 before" in workspace.run("dvc repro detect")
    assert forwards(workspace) == 61 + 61


def test_forced_runs_write_the_same_bytes(workspace: Workspace) -> None:
    packed = ("train/images-00000.npy", "crops.parquet", "preparation.json")
    names = ["data/boxes.parquet", *(f"data/packed/{name}" for name in packed), "metrics/gallery/boxes.png"]
    workspace.run("dvc repro gallery")
    before = [(workspace.folder / name).read_bytes() for name in names]
    workspace.run("rm -r .temper/boxes")
    output = workspace.run("dvc repro --force --single-item detect pack gallery")
    assert "yolox: 60 images detected now, 0 before" in output
    assert [(workspace.folder / name).read_bytes() for name in names] == before


def test_wrong_weights_stop_repro_in_one_line_and_the_boxes_stay(workspace: Workspace) -> None:
    (workspace.folder / "toy.onnx").write_bytes(b"damaged")
    workspace.set(detect__floor=0.1)
    output = workspace.run("dvc repro detect", code=None)
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "toy.onnx: expected sha256" in errors[0] and "Traceback" not in output, output
    workspace.set(detect__floor=0.05)
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
    assert "error: pack.box.classes: expected detected classes (bus, car), received cars" in output


def test_the_sheet_of_boxes_is_a_plot(workspace: Workspace) -> None:
    assert ran(workspace.run("dvc repro gallery")) == ["gallery"]
    workspace.run("dvc plots show metrics/gallery")
    sheet = cv2.imread(str(workspace.folder / "metrics/gallery/boxes.png"))
    assert sheet is not None and sheet.shape[1] == 4 * (2 * 164 + 4)
    orange = (sheet == (0, 120, 255)).all(axis=2).sum()
    assert orange > 24 * 4 * 60, "three kinds of eight photos, each with a box"
    workspace.set(detect={"detector": "none"})
    workspace.run("dvc repro gallery")
    assert not (workspace.folder / "metrics/gallery/boxes.png").exists()
