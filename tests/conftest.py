"""Fixtures: real data where it is at hand, and the repository's pipeline run by the real dvc in copies of it."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from tests.toys.photos import write_toy_photos
from tests.toys.workspace import ROOT, Workspace, copy_working_tree, toy_params

pytest_plugins = ["tests.only_skipped"]


def pytest_configure() -> None:
    """Lets Ctrl-C reach what tests start, also where they run in the background and are told to ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and weights; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("TEMPER_SHARED", ROOT.parent / "shared"))
    if not (folder / "data" / "README.md").exists():
        pytest.skip(f"real photos and weights are not at {folder}; set TEMPER_SHARED to their folder")
    return folder


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


@pytest.fixture(scope="session")
def toy_pipeline(
    make_workspace: Callable[[dict[str, Any]], Workspace], tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Workspace:
    """A workspace in which the whole pipeline ran on toy photos, committed; copy it, leave it as it is.

    It runs once, whatever the number of pytest's workers: the others wait for the one that came first.
    """
    shared = tmp_path_factory.getbasetemp()
    shared = shared if worker_id == "master" else shared.parent
    with FileLock(shared / "toy_pipeline.lock"):
        place = shared / "toy_pipeline.json"
        if not place.exists():
            workspace = make_workspace(toy_params(write_toy_photos(tmp_path_factory.mktemp("photos"))))
            workspace.run("dvc repro")
            workspace.commit("first run")
            place.write_text(json.dumps([str(workspace.folder), workspace.environment]), encoding="utf-8")
        folder, environment = json.loads(place.read_text(encoding="utf-8"))
    return Workspace(Path(folder), environment)


@pytest.fixture
def pipeline(toy_pipeline: Workspace, tmp_path: Path) -> Workspace:
    """A copy of `toy_pipeline` to do anything with."""
    return toy_pipeline.copy(tmp_path / "pipeline")


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
