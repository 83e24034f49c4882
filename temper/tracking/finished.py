"""Reads a finished experiment from the files that its stages wrote, for the trackers."""

import csv
import hashlib
import json
import math
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.base import loading
from temper.base.errors import TemperError
from temper.base.loading import PARAMS

MODEL = Path("models/fine_tune.keras")
PHASES = ("warm_up", "fine_tune")
# The stages on which `overview` depends: when it runs, the figures of all of them belong to the same experiment. DVC
# may run other stages after `overview`; until then, their files are those of an earlier experiment.
MEASURING = ("normalize", "pack", *PHASES, "evaluate")
DRAWING = ("evaluate", "overview")
PICTURES = (".png", ".svg", ".jpg")


@dataclass(frozen=True)
class Finished:
    """A finished experiment.

    Attributes:
        folder: the folder with its files, under the paths that the stages use.
        name: its name for people.
        commit: the git commit of the experiment, or the one that it started from; empty outside git.
        params: the content of params.yaml by dotted keys, without `trackers`.
        metrics: the numbers in metrics/*/metrics.json, by dotted keys.
        curves: (epoch, value) points, by names such as "fine_tune/validation/loss".
        pictures: paths relative to `folder`.
        fingerprint: 16 hex digits, a hash of its params and of the figures of the stages in MEASURING; equal
            experiments have equal fingerprints.
    """

    folder: Path
    name: str
    commit: str
    params: dict[str, str]
    metrics: dict[str, float]
    curves: dict[str, list[tuple[int, float]]]
    pictures: list[Path]
    fingerprint: str


def read(folder: Path, name: str = "", commit: str = "", whole: bool = True) -> Finished:
    """Reads an experiment from a folder with the files that its stages wrote.

    Args:
        name: the name of the experiment; "": `name_of` decides.
        commit: its git commit; "": the current commit of the folder.
        whole: whether every stage has run. If not, only the stages on which `overview` depends are read.

    Raises:
        TemperError: the experiment has not been measured.
    """
    params = without_trackers(loading.read(folder / PARAMS))
    metrics = {stage: _read_metrics(folder / f"metrics/{stage}/metrics.json") for stage in MEASURING}
    if not metrics["evaluate"]:
        raise TemperError(f"{folder / 'metrics/evaluate/metrics.json'}: expected figures, found none; run dvc repro")
    text = json.dumps([params, metrics], sort_keys=True, default=str)
    if whole:
        others = {path.parent.name: path for path in sorted(folder.glob("metrics/*/metrics.json"))}
        metrics |= {stage: _read_metrics(path) for stage, path in others.items() if stage not in MEASURING}
    return Finished(
        folder=folder,
        name=name or name_of(params, folder),
        commit=commit or git(folder, "rev-parse", "HEAD"),
        params={key: str(value) for key, value in flattened(params)},
        metrics={key: value for one in metrics.values() for key, value in _numbers(one)},
        curves=dict(_curves(folder)),
        pictures=[path for path in _pictures(folder) if whole or path.parts[1] in DRAWING],
        fingerprint=hashlib.sha256(text.encode()).hexdigest()[:16],
    )


def without_trackers(params: dict[str, Any]) -> dict[str, Any]:
    """The content of params.yaml without the section `trackers`, which does not belong to the experiment."""
    return {key: value for key, value in params.items() if key != "trackers"}


def name_of(params: dict[str, Any], folder: Path = Path()) -> str:
    """The name that DVC gave this experiment; if there is none, the branch and a digest of the params."""
    if os.environ.get("DVC_EXP_NAME"):
        return os.environ["DVC_EXP_NAME"]
    branch = git(folder, "rev-parse", "--abbrev-ref", "HEAD") or "workspace"
    digest = hashlib.sha256(json.dumps(params, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return re.sub(r"[^\w.-]", "_", f"{branch}-{digest}")


def git(folder: Path, *arguments: str) -> str:
    """The output of a git command in a folder; empty if it fails."""
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def flattened(tree: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of nested mappings with their dotted keys; a list is a leaf."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from flattened(value, f"{place}.{key}" if place else str(key))
    elif place:
        yield place, tree


def _numbers(tree: Any) -> Iterator[tuple[str, float]]:
    for key, value in flattened(tree):
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield key, float(value)


def _read_metrics(path: Path) -> dict[str, Any]:
    """The content of a metrics.json; empty if the stage has not written it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TemperError(f"{path}: expected the figures of a stage, received {error}; run dvc repro") from None
    return content if isinstance(content, dict) else {}


def _curves(folder: Path) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Yields the name and points of each figure of each phase, from DVCLive's tables."""
    for phase in PHASES:
        plots = folder / f"metrics/{phase}/plots/metrics"
        for path in sorted(plots.rglob("*.tsv")):
            name = path.relative_to(plots).with_suffix("").as_posix()
            with path.open(encoding="utf-8", newline="") as file:
                rows = csv.DictReader(file, delimiter="\t")
                points = [(int(row["step"]), float(row[path.stem])) for row in rows]
            yield f"{phase}/{name}", [(step, value) for step, value in points if math.isfinite(value)]


def _pictures(folder: Path) -> list[Path]:
    every = sorted(path for path in folder.glob("metrics/**/*") if path.suffix in PICTURES and path.is_file())
    return [path.relative_to(folder) for path in every if not path.name.startswith(".partial-")]
