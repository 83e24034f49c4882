"""Measures a sweep over `lr` and `aug` with the real DVC: what pruning saves and loses, and what kills do.

    python -m benchmarks.sweep [--trials 24] [--epochs 8] [--pruner reach]
    python -m benchmarks.sweep --cifar100 CIFAR-100.tar.gz MOBILENET.h5 [--images 5000]
    python -m benchmarks.sweep --flowers FLOWERS.zip MOBILENET_V2.h5

Runs two sweeps in one clone, with the same seed of the sampler. The first one prunes, and its driver is killed
(SIGKILL) at three random moments and started again. The second one does not prune; results of values that the first
sweep has tried to the end come from DVC's run cache. For each sweep it prints the trials, how often each stage ran, the
number of epochs and the best validation accuracy; then the ratio of the epochs and the difference of the accuracies.
Then it applies each pruner to the recorded curves of the second sweep, in the order of the trials and in 50 random
orders, which show how much of the result is luck. Finally it simulates 1,000 sweeps with each pruner and as many
without, on curves interpolated between the recorded ones: there the sampler learns from what it sees, as in a real one.

Without arguments, the data are scikit-learn's digits, 60 of each class. MOBILENET.h5 has the ImageNet weights of
MobileNet (alpha 0.25) without its head; it is used for CIFAR-100 with coarse labels, enlarged to 96 pixels.
MOBILENET_V2.h5 has those of MobileNetV2 (alpha 0.35), used for photos in class folders, as in recipes/folder.yaml.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial

from apps.sweep.pruning import pruner_of
from apps.sweep.settings import Median, Reach
from benchmarks.simulated_sweeps import Surface, compare, train
from tests.toys import workspace

OBJECTIVE = "fine_tune/validation/accuracy"
KILLS = 3
ORDERS = 50
SEEDS = 1000
PRUNERS: tuple[Median | Reach, ...] = (
    Reach(name="reach"),
    Reach(name="reach", after_epochs=1),
    Median(name="median"),
    Median(name="median", after_epochs=1),
)


def prepare(folder: Path, chosen: argparse.Namespace) -> None:
    """Makes a clone, runs its pipeline up to the warm-up, and commits."""
    # Replaces the whole section `fine_tune`: without the recipe's `augmentation`, all transformations are used, so the
    # digits are also mirrored, and `aug` can do harm.
    recipe, changes = "digits", {"normalize__max_per_class": 60, "fine_tune": {"epochs": chosen.epochs}}
    if chosen.cifar100:
        recipe, (archive, weights) = "cifar100", (path.resolve() for path in chosen.cifar100)
        changes |= {
            "fetch__cifar100__archive": str(archive),
            "fetch__cifar100__sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
            "normalize__max_per_class": chosen.images // 20,
            "backbone": {
                "name": "MobileNet",
                "arguments": {"alpha": 0.25},
                "weights": str(weights),
                "input_size": 96,
            },
            "embed__views": 1,
        }
    elif chosen.flowers:
        recipe, (photos, weights) = "folder", (path.resolve() for path in chosen.flowers)
        changes = {
            "fetch__photos__path": str(photos),
            "backbone__weights": str(weights),
            "fine_tune__epochs": chosen.epochs,
        }
    workspace.make(folder, recipe, **changes)
    workspace.run(folder, "dvc repro warm_up")
    workspace.run(folder, "git add -A")
    workspace.run(folder, "git -c user.name=b -c user.email=b@example.org commit -qm first")


def search(folder: Path, name: str, pruner: str, chosen: argparse.Namespace, kills: int) -> optuna.Study:
    """Runs a sweep to its end; kills its driver `kills` times on the way, and starts it again each time."""
    content: dict[str, Any] = {
        "objective": OBJECTIVE,
        "trials": chosen.trials,
        "parallel": chosen.parallel,
        "pruner": pruner,
        "seeds": 0,
        "params": {"lr": {"log": [1e-5, 1e-1]}, "aug": {"range": [0, 0.6]}},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    storage = f"sqlite:///{folder}/.temper/sweeps/{name}/study.db"
    for number in range(kills + 1):
        driver = subprocess.Popen(
            [sys.executable, "-m", "apps.sweep", f"{name}.yaml"], cwd=folder, env=workspace.environment()
        )
        if number == kills:
            if driver.wait():
                sys.exit(f"{name}: {driver.returncode}")
            break
        aim = (number + random.random()) * chosen.trials / (kills + 1)  # the number of ended trials after which to kill
        while driver.poll() is None and ended(storage, name) < aim:
            time.sleep(0.5)
        time.sleep(random.uniform(0, 10))
        driver.kill()
        driver.wait()
        print(f"killed after {ended(storage, name)} trials", flush=True)
    return optuna.load_study(study_name=name, storage=storage)


def ended(storage: str, name: str) -> int:
    """How many trials of a study have ended."""
    if not Path(storage.removeprefix("sqlite:///")).exists():
        return 0
    try:
        return sum(trial.state.is_finished() for trial in optuna.load_study(study_name=name, storage=storage).trials)
    except KeyError:  # the study is just being created
        return 0


def epochs(study: optuna.Study) -> int:
    """The number of epochs that all trials of a study trained."""
    return sum(len(trial.intermediate_values) for trial in study.trials)


def replayed(trials: list[FrozenTrial], pruning: Median | Reach, most: int) -> tuple[int, float]:
    """The number of epochs and the best accuracy that these trials would have had with a pruner.

    Args:
        trials: trials that were run without pruning.
        most: the number of epochs of a trial.
    """
    study, spent = optuna.create_study(direction="maximize", pruner=pruner_of(pruning)), 0
    for one in trials:
        assert one.value is not None
        spent += train(study, study.ask(), list(one.intermediate_values.values()), one.value, most)
    return spent, study.best_value


def compare_pruners(whole: optuna.Study, most: int) -> None:
    """Prints what each pruner would have saved and lost in a sweep, in the order of its trials and in random orders."""
    for pruning in PRUNERS:
        shares, lost = [], []
        for order in range(ORDERS + 1):
            trials = list(whole.trials)
            if order:
                random.Random(order).shuffle(trials)
            spent, best = replayed(trials, pruning, most)
            shares.append(spent / epochs(whole))
            lost.append(100 * (whole.best_value - best))
        print(
            f"{pruning}: {shares[0]:.2f} of the epochs, {lost[0]:.1f} points worse; in random orders "
            f"{mean(shares[1:]):.2f}, {mean(lost[1:]):.1f} on average and {max(lost[1:]):.1f} at worst",
            flush=True,
        )


def report(name: str, study: optuna.Study) -> None:
    states = Counter(trial.state.name for trial in study.trials)
    ran = Counter(stage for trial in study.trials for stage in trial.user_attrs.get("ran", []))
    different = len({trial.user_attrs["values"] for trial in study.trials})
    print(
        f"{name}: {len(study.trials)} trials ({dict(states)}), {different} different; stages that ran: {dict(ran)}; "
        f"{epochs(study)} epochs; best {OBJECTIVE} {study.best_value:.4f} "
        f"({json.loads(study.best_trial.user_attrs['values'])})",
        flush=True,
    )


def main(folder: Path, chosen: argparse.Namespace) -> None:
    random.seed(chosen.seed)
    os.environ |= {"DVC_SITE_CACHE_DIR": str(folder.parent / "dvc")}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    prepare(folder, chosen)
    pruned = search(folder, "pruned", chosen.pruner, chosen, KILLS)
    report("pruned", pruned)
    whole = search(folder, "off", "off", chosen, 0)
    report("off", whole)
    print(
        f"epochs with the pruner {chosen.pruner}: {epochs(pruned) / epochs(whole):.2f} of those without; best "
        f"accuracy: {100 * (pruned.best_value - whole.best_value):+.2f} points"
    )
    compare_pruners(whole, chosen.epochs)
    finished = [trial for trial in whole.trials if len(trial.intermediate_values) == chosen.epochs]
    compare(Surface(finished), PRUNERS, SEEDS, chosen.trials)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar100", type=Path, nargs=2, metavar=("ARCHIVE", "WEIGHTS"))
    parser.add_argument("--flowers", type=Path, nargs=2, metavar=("ARCHIVE", "WEIGHTS"))
    parser.add_argument("--pruner", default="reach", choices=["reach", "median"])
    parser.add_argument("--images", type=int, default=5000, help="of CIFAR-100")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    with tempfile.TemporaryDirectory() as name:
        main(Path(name).resolve() / "clone", parser.parse_args())
