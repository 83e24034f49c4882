"""Retraining for real: toy photos, the pipeline, git, DVC and GTO; killed, started twice, promoted, refused."""

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from temper.packs import Pack
from temper.predictor import Predictor
from tests.toys.photos import toy_photo, write_toy_photos
from tests.toys.tango import lower_bound
from tests.toys.workspace import Workspace, toy_params

NAMES = ("ant", "bee", "cat")
REPORT = ".temper/retrain/report"

pytestmark = pytest.mark.slow  # whole pipelines


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_photos(tmp_path_factory.mktemp("retrain") / "photos", per_class=30)


@pytest.fixture(scope="module")
def workspace(make_workspace: Callable[[dict[str, Any]], Workspace], photos: Path) -> Workspace:
    """Nothing has run in it yet; the tests below go on where the one before ended."""
    params = toy_params(photos)
    params["fine_tune"] |= {"epochs": 1}
    return make_workspace(params)


def add(photos: Path, per_class: int, first: int, wrong: float = 0.0) -> None:
    """Adds toy photos; a share of them in the folder of another class."""
    for label in range(3):
        for number in range(first, first + per_class):
            name = NAMES[(label + (number - first < wrong * per_class)) % 3]
            (photos / name / f"{label}-{number:03}.png").write_bytes(toy_photo(label, number))


def add_other_kind(photos: Path, count: int) -> None:
    """Adds photos of another kind: smooth discs on white."""
    for number in range(count):
        pixels = np.full((24, 24, 3), 255, np.uint8)
        cv2.circle(pixels, (12, 12), 4 + number % 7, (0, 0, 10 * (number % 20)), -1)
        pixels[0, 0] = number  # of other bytes each
        (photos / "ant" / f"disc-{number:03}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def said(workspace: Workspace) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((workspace.folder / REPORT / "report.json").read_text(encoding="utf-8"))
    return values


def tags(workspace: Workspace) -> list[str]:
    return workspace.run("git tag").split()


def model(workspace: Workspace) -> bytes:
    return (workspace.folder / "models/fine_tune.keras").read_bytes()


def right(path: Path, packed: Path) -> np.ndarray:
    """On which packed images a model is right, found without anything of retraining."""
    pack = Pack(packed)
    pixels = [pack.image(row) for row in range(len(pack))]
    flags: np.ndarray = Predictor(path).probabilities(pixels).argmax(axis=1) == pack.labels
    return flags


def test_the_first_model_is_promoted_and_pushed(workspace: Workspace) -> None:
    there = workspace.folder.with_name("remote")
    workspace.run(f"git init -q --bare {there}")
    workspace.run(f"git remote add origin {there}")
    assert "--push: expected a default remote of DVC" in workspace.run("python -m apps.retrain --push", code=1)
    workspace.run(f"dvc remote add -q --default there {there}.dvc")
    workspace.commit("a remote")
    printed = workspace.run("python -m apps.retrain --push")
    assert workspace.run(f"git --git-dir {there} tag").split() == tags(workspace)
    assert workspace.run(f"git --git-dir {there} rev-parse main") == workspace.run("git rev-parse main")
    assert workspace.run("dvc status --cloud --quiet") == "", "the outputs are there, too"
    assert "# Retraining\n\nPromoted: classifier@v0.1.0 is in the stage prod.\n" in printed
    assert tags(workspace) == ["classifier#prod#1", "classifier@v0.1.0"]
    assert workspace.run("git status --porcelain") == ""
    assert "dvc.lock" in workspace.run("git show --name-only --format=%s HEAD")
    workspace.run("dvc artifacts get . classifier --stage prod --out .temper/got.keras")
    assert (workspace.folder / ".temper/got.keras").read_bytes() == model(workspace)


def test_new_photos_of_the_same_kind_are_judged_by_the_rule(workspace: Workspace, photos: Path, tmp_path: Path) -> None:
    """A second one is refused meanwhile, and the first killed; it goes on as a dry run, and then promotes."""
    add(photos, 34, 30)
    old = model(workspace)
    first = workspace.start("python -m apps.retrain", start_new_session=True)
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("Running stage 'fine_tune'"):
            break
    assert "expected no other retraining in this folder" in workspace.run("python -m apps.retrain", code=1)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    with suppress(ProcessLookupError):  # DVC takes a dead process that nobody has waited for yet for a living one
        until = time.monotonic() + 20
        while time.monotonic() < until:
            os.killpg(first.pid, 0)
            time.sleep(0.05)

    margin = "--margin 0.2"
    printed = workspace.run(f"python -m apps.retrain --dry-run {margin}")
    assert model(workspace) == old and workspace.run("git status --porcelain") == "", "as it was"
    assert len(tags(workspace)) == 2
    found = said(workspace)
    assert found["new_photos"] == 102 and not found["unlike"]["flagged"] and not found["labels_suspicious"]
    assert ("Would be promoted" in printed) == found["promote"]

    printed = workspace.run(f"python -m apps.retrain {margin}")
    assert "Running stage 'fine_tune'" not in printed, "the dry run has trained it"
    assert found["promote"] and "Promoted: classifier@v0.2.0" in printed and len(tags(workspace)) == 4
    (tmp_path / "old.keras").write_bytes(old)
    (tmp_path / "new.keras").write_bytes(model(workspace))
    before, after = (
        right(tmp_path / name, workspace.folder / "data/packed/test") for name in ("old.keras", "new.keras")
    )
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    of_all = found["compared"][0]
    assert (of_all["gained"], of_all["lost"], of_all["images"]) == (gained, lost, len(before))
    assert of_all["interval"][0] == pytest.approx(lower_bound(gained, lost, len(before)), abs=1e-5)
    assert of_all["interval"][0] > -0.2
    assert "\n\nNothing was done. There is nothing new to promote.\n" in workspace.run("python -m apps.retrain")
    assert "\n\nPushed classifier@v0.2.0, which origin did not" in workspace.run("python -m apps.retrain --push")
    assert workspace.run("git ls-remote --tags --refs -q origin").count("refs/tags/") == 4
    assert workspace.run("git status --porcelain") == "" and len(tags(workspace)) == 4


def test_wrong_labels_are_not_promoted_and_photos_of_another_kind_are_flagged(
    workspace: Workspace, photos: Path
) -> None:
    """The margin lets every model pass: only the labels keep this one back."""
    old = model(workspace)
    add(photos, 34, 64, wrong=0.3)
    add_other_kind(photos, 40)
    printed = workspace.run("python -m apps.retrain --margin 1")
    found = said(workspace)
    assert not found["promote"] and found["labels_suspicious"], printed
    assert found["unlike"]["flagged"] and found["unlike"]["photos"] >= 20
    assert "**Look at them** (unlike.png, unlike.csv): " in printed and "disc-0" in printed
    rows = (workspace.folder / REPORT / "unlike.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + found["unlike"]["photos"] and (workspace.folder / REPORT / "unlike.png").exists()
    assert (found["shifted_classes"] == [] and "ant" in printed) or found["shifted_classes"]
    assert model(workspace) == old and workspace.run("git status --porcelain") == "" and len(tags(workspace)) == 4
