"""`detect.detector: detectron2`: its errors anywhere; its boxes where an environment with Detectron2 is at hand."""

import hashlib
import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.detect.detectors.detectron2 import CHUNK, PACKAGES, Detectron2Detector, Settings
from temper.base.errors import TemperError
from temper.yolox import COCO
from tests.toys.cars import cars
from tests.toys.detector import as_photos, find_new, rows
from tests.toys.tables import gray, write_raw
from tests.toys.workspace import ROOT

CONFIG = "COCO-Detection/faster_rcnn_R_101_FPN_3x"
FLOOR = 0.001  # random weights are sure of nothing

# With Detectron2's own means alone: weights from a seed, then the boxes of its predictor for each photo.
REFERENCE = """
import sys, cv2, numpy, torch
from detectron2 import config, model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
name, floor, folder, *paths = sys.argv[1:]
chosen = config.get_cfg()
chosen.merge_from_file(model_zoo.get_config_file(name + ".yaml"))
chosen.MODEL.DEVICE, chosen.MODEL.ROI_HEADS.SCORE_THRESH_TEST = "cpu", float(floor)
torch.manual_seed(0)
model = build_model(chosen)
for name, values in model.named_buffers():
    if name.endswith("conv3.norm.weight"):
        values.fill_(0.2)  # or 33 untrained residual blocks end in infinities
with torch.no_grad():
    model.roi_heads.box_predictor.cls_score.weight *= 0.3  # or all scores are nearly 1
DetectionCheckpointer(model, folder).save("weights")
chosen.MODEL.WEIGHTS = folder + "/weights.pth"
predictor = DefaultPredictor(chosen)
for number, path in enumerate(paths):
    found = predictor(cv2.imread(path))["instances"]
    classes, boxes = found.pred_classes, found.pred_boxes.tensor
    numpy.savez(f"{folder}/{number}.npz", boxes=boxes, scores=found.scores, classes=classes)
"""


def settings(**changes: Any) -> Settings:
    section = {"detector": "detectron2", "config": CONFIG, "device": "cpu", "batch": 4, "floor": FLOOR}
    return Settings.model_validate(section | changes)


@pytest.fixture(scope="session")
def environment() -> Path:
    """An environment with Detectron2, made as requirements-detectron2.txt says."""
    folder = Path(os.environ.get("TEMPER_DETECTRON2", ROOT / ".venv-detectron2"))
    if not (folder / "bin/python").exists():
        pytest.skip(f"Detectron2 is not installed in {folder}; set TEMPER_DETECTRON2 to its environment")
    return folder.absolute()


@pytest.fixture(scope="session")
def reference(environment: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights of the default config and the boxes that its predictor finds in ten photos."""
    folder = tmp_path_factory.mktemp("detectron2")
    paths = sorted((shared / "data/stanford_cars/cars_train").glob("*.jpg"))[:10]
    command = [environment / "bin/python", "-c", REFERENCE, CONFIG, str(FLOOR), folder, *paths]
    subprocess.run(list(map(str, command)), check=True, cwd=folder, capture_output=True)
    return folder


def with_reference_weights(environment: Path, reference: Path, **changes: Any) -> Detectron2Detector:
    weights = reference / "weights.pth"
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    values = {"weights": str(weights), "sha256": sha256, "environment": str(environment)}
    return Detectron2Detector(settings(**(values | changes)))


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4])
def test_the_boxes_are_those_of_detectron2s_own_predictor(
    in_tmp_path: Path, environment: Path, reference: Path, shared: Path, batch: int
) -> None:
    photos = as_photos([data for data, _ in cars(shared)[:10]])
    with closing(with_reference_weights(environment, reference, batch=batch)) as of_worker:
        found = dict(of_worker.detect(photos))
    assert list(found) == [str(number) for number in range(10)]
    for number in range(10):
        with np.load(reference / f"{number}.npz") as expected:
            inside = found[str(number)]
            assert len(inside) == len(expected["boxes"]) == 100
            # Scores of random weights are close, and a batch's last bits may swap neighbours: each box has its twin.
            apart = np.abs(inside.corners[:, None] - expected["boxes"][None]).max(axis=2)  # (100, 100)
            assert apart.min(axis=1).max() < 1e-3 and apart.min(axis=0).max() < 1e-3
            np.testing.assert_allclose(inside.scores, expected["scores"], atol=1e-3, rtol=0)
            assert set(inside.classes) == {COCO[index] for index in expected["classes"]}


@pytest.mark.slow
def test_a_killed_worker_ends_in_one_line_and_a_second_run_goes_on(
    in_tmp_path: Path, environment: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small photos and a chunk of two, so that the second message comes soon."""
    monkeypatch.setattr("stages.detect.detectors.detectron2.CHUNK", 2)
    images = write_raw(in_tmp_path, [gray(level, 64, 96) for level in range(10, 20)])
    first = with_reference_weights(environment, reference)
    found = find_new(images, first)
    killer = threading.Thread(target=kill_after, args=(in_tmp_path, 1))
    killer.start()
    with pytest.raises(TemperError, match=r"^detect: detectron2: its process was killed by signal 9; what it found"):
        list(found)
    killer.join()
    assert not list((in_tmp_path / ".temper").glob("messages/*")), "no scratch is left"
    assert len(rows(find_new(images, first))) == 10


def kill_after(folder: Path, answers: int) -> None:
    """Kills the worker of this test, by the folder that it was started for, once it has taken some messages."""
    while True:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().decode()
            except OSError:
                continue
            if "detectron2_worker" in command and str(folder) in command:
                scratch = Path(command.split("\0")[-2])
                if not (scratch / f"photos-{answers}.npz").exists() and list(scratch.glob("photos-*")):
                    os.kill(int(process.name), signal.SIGKILL)
                    return
        time.sleep(0.01)


def test_a_missing_environment_ends_in_one_line_with_the_commands_that_make_it(in_tmp_path: Path) -> None:
    with pytest.raises(TemperError) as refused:
        Detectron2Detector(settings())
    message = str(refused.value)
    assert message.startswith("detect: detectron2: expected an environment with Detectron2 in .venv-detectron2, found")
    requirements = (ROOT / "requirements-detectron2.txt").read_text(encoding="utf-8")
    commands = message.split("make it: ")[1].split(" && ")
    assert len(commands) == 3 and all(f"#     {command}\n" in requirements for command in commands)


def stand_in(folder: Path, worker: str) -> Path:
    """An environment whose python knows versions and, as a worker, only what `worker` says, in shell."""
    python = folder / "environment/bin/python"
    python.parent.mkdir(parents=True)
    versions = str(["0"] * len(PACKAGES)).replace("'", '"')
    python.write_text(f"#!/bin/sh\nif [ \"$1\" = -c ]; then echo '{versions}'; exit; fi\n{worker}\n", encoding="utf-8")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return folder / "environment"


@pytest.mark.parametrize(
    ("worker", "message"),
    [
        ("kill -9 $$", "its process was killed by signal 9; what it found before is kept: run again to go on"),
        ("echo starting; echo 'no such config' >&2; exit 3", "its process ended with code 3, saying: no such config;"),
        (
            "echo 'CUDA out of memory. Tried to allocate 2 GiB' >&2; echo more >&2; exit 1",
            "its process ended with code 1, saying: CUDA out of memory. Tried to allocate 2 GiB; what it found before "
            "is kept: lower detect.batch or free some memory, and run again",
        ),
        (
            "echo '  what():  std::bad_alloc' >&2; kill -6 $$",
            r"its process was killed by signal 6, saying: what\(\): std::bad_alloc; .*: lower detect.batch",
        ),
    ],
)
def test_a_worker_that_dies_ends_in_one_line(in_tmp_path: Path, worker: str, message: str) -> None:
    environment = stand_in(in_tmp_path, worker)
    photos = as_photos([gray(level % 256) for level in range(CHUNK * 5)])
    with pytest.raises(TemperError, match=f"^detect: detectron2: {message}"):
        list(Detectron2Detector(settings(environment=str(environment))).detect(photos))


def test_the_cache_is_keyed_by_model_and_versions_but_not_by_how_it_runs(in_tmp_path: Path) -> None:
    environment = str(stand_in(in_tmp_path, "exit 1"))
    make: Callable[..., str] = lambda **changes: Detectron2Detector(settings(environment=environment, **changes)).key  # noqa: E731
    assert make() == make(batch=1, device="cuda")
    assert len({make(), make(floor=0.1), make(config="COCO-Detection/retinanet_R_50_FPN_3x")}) == 3


def test_weights_of_ones_own_need_their_checksum() -> None:
    with pytest.raises(ValueError, match="expected sha256 with weights of your own and none with zoo"):
        settings(weights="model.pth")
    with pytest.raises(ValueError, match="expected sha256 with weights of your own and none with zoo"):
        settings(sha256="0" * 64)
