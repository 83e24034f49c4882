"""Checks that params.yaml, the code and the images stay the same during a sweep, so that its trials are comparable."""

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
_CHOOSES_IMAGES = {"seed", "fetch", "normalize"}  # params of `normalize`, the stage that writes these two files
_PAUSE = 0.5  # seconds between two comparisons


def refuse_stages_before(sweep: Sweep, path: Path) -> None:
    """Checks that the stages before the first one that depends on a searched param are up to date.

    Otherwise each trial would run them, although they are the same in all trials.

    Raises:
        TemperError: some of these stages are out of date.
    """
    stages: dict[str, Any] = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    order, swept = list(stages), {key.split(".")[0] for key in sweep.params}
    first = min(
        [order.index(sweep.aim.stage)]
        + [
            order.index(name)
            for name, stage in stages.items()
            if swept & {str(key).split(".")[0] for key in stage.get("do", stage).get("params", [])}
            and name not in ("gallery", "cross_validate")  # not on the path from photos to a model
        ]
    )
    waiting = [name for name in experiments.would_run(sweep.aim.stage) if order.index(name.split("@")[0]) < first]
    if waiting:
        raise TemperError(
            f"{path}: expected all stages before {order[first]} to be up to date, or every trial would run them; "
            f"{', '.join(waiting)} would run: start dvc repro {sweep.aim.stage} first"
        )


def identity(sweep: Sweep) -> dict[str, str]:
    """Digests of all that must not change during a sweep, by names for messages."""
    # Without the searched params: after `dvc exp apply` of the best trial, the sweep may still continue.
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
    """The checksums of the table of images and the list of classes in dvc.lock; another clone may have other photos.

    An empty list if dvc.lock cannot be read.
    """
    try:
        lock = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))
        return [str(out["md5"]) for out in lock["stages"]["normalize"]["outs"] if out["path"] in _IMAGES]
    except (OSError, yaml.YAMLError, KeyError, TypeError):  # DVC is writing it, or nothing has run
        return []


def refuse_edits(study: optuna.Study, sweep: Sweep, path: Path, patience: float = 60.0) -> None:
    """Repeats the comparison before each trial, because the trial starts from the working folder as it is then.

    `dvc exp run` changes the working folder for a moment when it starts another trial, so only a difference that lasts
    longer than `patience` counts.

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
    """Records the digests if the study has no trials yet; otherwise compares them with those recorded.

    Args:
        now: the digests by `identity`.

    Raises:
        TemperError: something was edited since the sweep began.
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
