"""Throw-away copies of this repository, to measure in and for tests."""

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent


def copy_working_tree(folder: Path) -> None:
    """Copies what git tracks or would track, as it is now, without what the pipeline wrote."""
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


def make(folder: Path, recipe: str, **changes: Any) -> None:
    """A repository in `folder` with a recipe as params.yaml; `a__b=1` sets `a.b`."""
    copy_working_tree(folder)
    values = yaml.safe_load((ROOT / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8"))
    change(values, changes)
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    for command in ("git init -q", "git add -A", "git -c user.name=b -c user.email=b@example.org commit -qm start"):
        run(folder, command)


def run(folder: Path, command: str) -> float:
    """Runs a command in `folder` and returns its wall seconds; what it printed is shown only if it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    names = {f"GIT_{role}_{what}": "b@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = os.environ | names | {"PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    done = subprocess.run(
        command.split(),
        cwd=folder,
        env=environment,
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
