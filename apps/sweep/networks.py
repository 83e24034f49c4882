"""Measures what each backbone of a sweep costs: features, megabytes, and images per second.

    python -m apps.sweep.networks BACKBONE.keras

measures one backbone and prints JSON. A sweep runs this in a process of its own for each backbone, one after the other,
when all trials have ended.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import yaml

from apps.sweep.experiments import is_here, opened
from temper.base.errors import TemperError
from temper.tracking.finished import git

BACKBONE = "models/backbone.keras"
KEPT = "networks"  # user attribute of the study: the measurements by the checksum of the backbone's file
SECONDS = 2.0  # how long to measure; at least three batches


def checksum_of(commit: str) -> str:
    """The MD5 of an experiment's backbone, from its dvc.lock."""
    lock = yaml.safe_load(git(Path(), "show", f"{commit}:dvc.lock"))
    return next(str(out["md5"]) for out in lock["stages"]["backbone"]["outs"] if out["path"] == BACKBONE)


def measure_all(study: optuna.Study, trials: list[optuna.trial.FrozenTrial]) -> dict[int, dict[str, float]]:
    """What the backbone of each finished trial costs, by the trial's number. Each distinct file is measured once.

    Trials of other clones are left out, because this clone does not have their files.
    """
    known: dict[str, dict[str, float]] = dict(study.user_attrs.get(KEPT, {}))
    found = {}
    for trial in trials:
        commit = trial.user_attrs["commit"]
        if not is_here(commit):
            continue
        checksum = checksum_of(commit)
        if checksum not in known:
            with opened(commit, BACKBONE) as path:
                known[checksum] = _measured(path)
            study.set_user_attr(KEPT, known)
        found[trial.number] = known[checksum]
    return found


def _measured(path: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "apps.sweep.networks", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TemperError(f"{BACKBONE}: {(done.stderr.strip().splitlines() or ['not measured'])[-1]}")
    measured: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def measure(path: Path) -> dict[str, Any]:
    """Features, megabytes and images per second of a backbone: forward passes with the batch size of `embed`."""
    import numpy as np  # noqa: PLC0415

    from temper import keras_files  # noqa: PLC0415
    from temper.batches import INFERENCE_BATCH  # noqa: PLC0415

    backbone = keras_files.load(str(path))
    images = np.zeros((INFERENCE_BATCH, *backbone.input_shape[1:]), np.uint8)
    backbone.predict_on_batch(images)  # compiles
    seconds: list[float] = []
    while len(seconds) < 3 or sum(seconds) < SECONDS:
        start = time.perf_counter()
        backbone.predict_on_batch(images)
        seconds.append(time.perf_counter() - start)
    rate = INFERENCE_BATCH / min(seconds)  # the fastest batch, which other load disturbs least
    megabytes = path.stat().st_size / 1e6
    return {
        "features": backbone.output_shape[-1],
        "megabytes": round(megabytes, 2),
        "images_a_second": float(f"{rate:.3g}"),
    }


if __name__ == "__main__":
    from temper.base import starting

    starting.begin(with_keras=True)
    print(json.dumps(measure(Path(sys.argv[1]))))
