"""The recipes on real photos with real ImageNet weights: minutes each."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.toys.workspace import ROOT, Workspace

pytestmark = pytest.mark.slow

Make = Callable[[dict[str, Any]], Workspace]


def recipe(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))
    return values


def with_imagenet(workspace: Workspace, shared: Path, tmp_path: Path) -> Workspace:
    """Puts the weights where Keras would have downloaded them to."""
    shutil.copytree(shared / "weights", tmp_path / "keras/models")
    return Workspace(workspace.folder, workspace.environment | {"KERAS_HOME": str(tmp_path / "keras")})


def accuracy(workspace: Workspace) -> float:
    workspace.run("dvc repro evaluate")
    metrics = json.loads((workspace.folder / "metrics/evaluate/metrics.json").read_text(encoding="utf-8"))
    return float(metrics["accuracy"])


def test_flowers_reach_0_88(make_workspace: Make, shared: Path, tmp_path: Path) -> None:
    params = recipe("folder")
    params["fetch"]["photos"]["path"] = str(shared / "data/flowers/flowers.zip")
    assert accuracy(with_imagenet(make_workspace(params), shared, tmp_path)) >= 0.88


def test_imagenet_weights_gain_15_points_on_cifar100(make_workspace: Make, shared: Path, tmp_path: Path) -> None:
    archive = shared / "data/cifar100/cifar-100-python.tar.gz"
    params = recipe("cifar100")
    params["fetch"]["cifar100"] |= {
        "archive": str(archive),
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }
    params["normalize"]["max_per_class"] = 75  # enough to see a gain of this size
    # DenseNet's weights are not at hand; the rest is the recipe's.
    params["backbone"] |= {"name": "MobileNet", "arguments": {"alpha": 0.25}, "input_size": 96}
    workspace = with_imagenet(make_workspace(params), shared, tmp_path)
    pretrained = accuracy(workspace)
    workspace.set(backbone__weights="none")
    assert pretrained - accuracy(workspace) >= 0.15
