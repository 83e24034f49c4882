"""Throw-away copies of this repository, in which tests and benchmarks run the real `dvc`."""

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent


def copy_working_tree(folder: Path) -> None:
    """Copies the files that git tracks or would track, as they are now, without the pipeline's outputs."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and name != "dvc.lock" and not name.startswith("metrics/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def change(values: dict[str, Any], changes: dict[str, Any]) -> None:
    """Sets keys of params in place; "a__b" is `a.b`."""
    for name, value in changes.items():
        *sections, key = name.split("__")
        inside = values
        for section in sections:
            inside = inside[section]
        inside[key] = value


def toy_params(photos: Path) -> dict[str, Any]:
    """recipes/digits.yaml reduced to toy photos, so that the pipeline runs in seconds."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "recipes" / "digits.yaml").read_text(encoding="utf-8"))
    values |= {"image_size": 16, "batch_size": 16, "lr": 1e-3}
    values["fetch"] = {"photos": {"source": "folder", "path": str(photos)}}
    values["warm_up"] |= {"epochs": 2, "lr": 0.03}
    values["fine_tune"]["epochs"] = 3
    values["export"] = {"formats": []}  # TensorFlow's converter takes 4 s to start; `make run` tests it
    return values


class Workspace:
    """A copy of this repository, as it is in the working tree, in a git repository of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment

    def start(self, command: str, **how: Any) -> "subprocess.Popen[str]":
        """Starts a shell command in the workspace."""
        return subprocess.Popen(
            f"exec {command}",
            shell=True,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **how,
        )

    def run(self, command: str, code: int | None = 0) -> str:
        """Runs a shell command in the workspace and returns its output.

        Args:
            code: the expected exit code; None: any but 0.
        """
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
    """The stages that a `dvc` command really executed."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage ")]


def make(folder: Path, recipe: str, **changes: Any) -> None:
    """Makes a repository in `folder` with a recipe as params.yaml; `a__b=1` sets `a.b`."""
    copy_working_tree(folder)
    values = yaml.safe_load((ROOT / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8"))
    change(values, changes)
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    for command in ("git init -q", "git add -A", "git -c user.name=b -c user.email=b@example.org commit -qm start"):
        run(folder, command)


def enter_copy(prepared: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies a repository below a folder, and makes it the working folder until the test ends."""
    folder = shutil.copytree(prepared, place / "repository")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(place / "site"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    return folder


def environment() -> dict[str, str]:
    """This process's environment, with this interpreter's programs first, a name for git, and no analytics of DVC."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    names = {f"GIT_{role}_{what}": "b@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return os.environ | names | {"PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(ROOT)}


def run(folder: Path, command: str) -> float:
    """Runs a command in `folder` and returns its wall seconds; its output is shown only if it fails."""
    start = time.perf_counter()
    done = subprocess.run(
        command.split(),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{command}: {done.returncode}\n{done.stdout}")
    return seconds


def peak_memory_of_children() -> float:
    """The largest resident set of any finished child process, in MB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
