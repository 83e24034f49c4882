"""What must stay as it is while a sweep goes on, so that its trials can be compared."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import optuna
import yaml

from apps.sweep import experiments, space
from apps.sweep.settings import Sweep
from temper.base import loading
from temper.base.errors import TemperError
from temper.base.loading import PARAMS
from temper.tracking.finished import git, without_trackers

CODE = ("dvc.yaml", "stages", "temper")
_IMAGES = ("data/images.parquet", "data/classes.txt")
_CHOOSES_IMAGES = {"seed", "fetch", "normalize"}  # the params of the stage that writes them
_PAUSE = 0.5  # seconds between two looks at a difference


def refuse_stages_before(sweep: Sweep, path: Path) -> None:
    """Refuses to begin where each trial would run what should have run once, before all of them.

    Raises:
        TemperError: there are such stages.
    """
    stages: dict[str, Any] = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    order, swept = list(stages), {key.split(".")[0] for key in sweep.params}
    first = min(
        [order.index(sweep.aim.stage)]
        + [
            order.index(name)
            for name, stage in stages.items()
            if swept & {str(key).split(".")[0] for key in stage.get("do", stage).get("params", [])}
            and name not in ("gallery", "cross_validate")  # beside the way from the photos to a model
        ]
    )
    waiting = [name for name in experiments.would_run(sweep.aim.stage) if order.index(name.split("@")[0]) < first]
    if waiting:
        raise TemperError(
            f"{path}: expected what stands before {order[first]} to be up to date, or every trial would run it; "
            f"{', '.join(waiting)} would run: start dvc repro {sweep.aim.stage} first"
        )


def identity(sweep: Sweep) -> dict[str, str]:
    """Digests of what must stay as it is for trials to be compared, by what a reader calls it."""
    # Without what trials change: after `dvc exp apply` of the best, the sweep may still go on.
    params = space.changed(without_trackers(loading.read(PARAMS)), sweep.params, {})
    mine = sweep.model_dump(include={"params", "objective"})
    listed = git(Path(), "ls-files", "-co", "--exclude-standard", "--", *CODE).splitlines()
    code = {name: _digest(Path(name).read_bytes()) for name in sorted(listed) if Path(name).is_file()}
    parts: dict[str, Any] = {
        PARAMS: params,
        "the code in dvc.yaml, stages/ and temper/": code,
        "its own params or objective": mine,
    }
    if not {key.split(".")[0] for key in sweep.params} & _CHOOSES_IMAGES:
        parts |= {"data/images.parquet": _images()}
    return {name: _digest(json.dumps(part, sort_keys=True, default=str).encode()) for name, part in parts.items()}


def _images() -> list[str]:
    """What dvc.lock says of the table of images and the list of classes; another clone may have other photos."""
    try:
        lock = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))
        return [str(out["md5"]) for out in lock["stages"]["normalize"]["outs"] if out["path"] in _IMAGES]
    except (OSError, yaml.YAMLError, KeyError, TypeError):  # DVC writes it, or nothing has run
        return []


def refuse_edits(study: optuna.Study, sweep: Sweep, path: Path, patience: float = 60.0) -> None:
    """Compares once more, before a trial takes the working folder as it is then.

    `dvc exp run` changes the folder for a moment when it begins another trial, so a difference counts if it stays.

    Args:
        patience: seconds that a difference may last.

    Raises:
        TemperError: something was edited since the sweep began.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            refuse_another(study, identity(sweep), path)
            return
        except TemperError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def refuse_another(study: optuna.Study, now: dict[str, str], path: Path) -> None:
    """Writes down what a study began with, or compares.

    Raises:
        TemperError: something was edited since.
    """
    began = study.user_attrs.get("identity")
    if began is None or not study.get_trials(deepcopy=False):
        study.set_user_attr("identity", now)
        study.set_user_attr("commit", git(Path(), "rev-parse", "--short", "HEAD"))
        return
    edited = [name for name in now if began.get(name, now[name]) != now[name]]
    if edited:
        raise TemperError(
            f"{path}: expected what the sweep began with at commit {study.user_attrs['commit']}, but since then "
            f"{' and '.join(edited)} changed, so its trials could not be compared: undo that, or begin a new sweep "
            f"with a copy of {path.name} under another name"
        )
