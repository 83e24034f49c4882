"""Toys made in a temporary folder, real data where it is at hand, and the repository's pipeline run by the real dvc."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from benchmarks.workspace import change, copy_working_tree

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and weights; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("TEMPER_SHARED", ROOT.parent / "shared"))
    if not (folder / "data" / "README.md").exists():
        pytest.skip(f"real photos and weights are not at {folder}; set TEMPER_SHARED to their folder")
    return folder


def toy_photo(label: int, number: int, side: int = 24, ending: str = ".png") -> bytes:
    """A photo that a small network can tell from those of other labels: a square in a corner, in a colour."""
    random = np.random.default_rng([label, number])
    pixels = random.integers(0, 120, (side, side, 3), np.uint8)
    top, left = [(0, 0), (0, side // 2), (side // 2, 0)][label % 3]
    channels = slice(None) if label < 3 else slice(label % 2, label % 2 + 2)
    pixels[top : top + side // 2, left : left + side // 2, channels] += 100
    return bytes(cv2.imencode(ending, pixels)[1])


def write_toy_photos(folder: Path, per_class: int = 40) -> Path:
    """Three class folders of toy photos."""
    for label, name in enumerate(("ant", "bee", "cat")):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            (folder / name / f"{number:03}.png").write_bytes(toy_photo(label, number))
    return folder


def toy_params(photos: Path) -> dict[str, Any]:
    """recipes/digits.yaml cut down to toy photos and seconds."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "recipes" / "digits.yaml").read_text(encoding="utf-8"))
    values |= {"source": "folder", "image_size": 16, "batch_size": 16, "lr": 1e-3}
    values["sources"]["local"] = str(photos)
    values["warm_up"] |= {"epochs": 2, "lr": 0.03}
    values["fine_tune"]["epochs"] = 3
    return values


class Workspace:
    """A copy of this repository, as it is in the working tree, in a git repository of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment

    def start(self, command: str) -> "subprocess.Popen[str]":
        """Starts a shell command in it."""
        return subprocess.Popen(
            f"exec {command}",
            shell=True,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, command: str, code: int | None = 0) -> str:
        """Runs a shell command in it and returns what it prints; `code` is the expected exit code, `None` any but 0."""
        process = self.start(command)
        output, _ = process.communicate()
        failed = process.returncode != 0
        assert process.returncode == code or (code is None and failed), f"{command}: {process.returncode}\n{output}"
        return output

    def set(self, **changes: Any) -> None:
        """Changes keys of params.yaml; `a__b=1` sets `a.b`."""
        path = self.folder / "params.yaml"
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        change(values, changes)
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")

    def commit(self, message: str) -> None:
        self.run("git add -A")
        self.run(f"git commit -qm '{message}'")

    def copy(self, folder: Path) -> "Workspace":
        shutil.copytree(self.folder, folder, symlinks=True)
        return Workspace(folder, self.environment)


def ran(output: str) -> list[str]:
    """The stages that a `dvc` command really ran."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage ")]


@pytest.fixture(scope="session")
def make_workspace(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Workspace]:
    """Makes a Workspace with these params; nothing has run in it yet."""
    home = tmp_path_factory.mktemp("home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_", "PYTEST"))}
    environment |= {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_SITE_CACHE_DIR": str(home / "dvc"),
        "DVC_NO_ANALYTICS": "1",
    }
    (home / ".gitconfig").write_text("[user]\nname = T\nemail = t@example.org\n[init]\ndefaultBranch = main\n")

    def make(params: dict[str, Any]) -> Workspace:
        folder = tmp_path_factory.mktemp("workspace")
        copy_working_tree(folder)
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
        workspace = Workspace(folder, environment)
        workspace.run("git init -q")
        workspace.commit("start")
        return workspace

    return make


@pytest.fixture(scope="module")
def toy_pipeline(
    make_workspace: Callable[[dict[str, Any]], Workspace], tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    """A workspace in which the whole pipeline ran on toy photos, committed; copy it, leave it as it is."""
    photos = write_toy_photos(tmp_path_factory.mktemp("photos"))
    workspace = make_workspace(toy_params(photos))
    workspace.run("dvc repro")
    workspace.commit("first run")
    return workspace


@pytest.fixture
def pipeline(toy_pipeline: Workspace, tmp_path: Path) -> Workspace:
    """A copy of `toy_pipeline` to do anything with."""
    return toy_pipeline.copy(tmp_path / "pipeline")


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
