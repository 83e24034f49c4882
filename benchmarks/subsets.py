"""Compares the model that ships with the alternatives (warm-up, fine-tune) on random subsets of photos.

    python -m benchmarks.subsets folder /photos/flowers.zip --subsets 5
    python -m benchmarks.subsets cifar100 /photos/cifar-100-python.tar.gz --subsets 5 --set backbone.name=MobileNet

Each subset has a random number of photos of each class for training and validation, 5 to 60 (log-uniform, as far as
there are enough); up to 100 others of each class are the test. For each subset it measures the test accuracy of the
warm-up, of the fine-tune with its epoch selected on validation (`fine_tune.margin: 0`), of the model that ships, and of
scikit-learn's logistic regression on plain embeddings. Differences are paired by subset, with 95 % intervals of the
mean (Student's t).
"""

import argparse
import csv
import pickle
import random
import sys
import tarfile
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import yaml

from benchmarks.accuracy import Figures, assign, interval, number, one_run, pairs
from temper.endings import is_image
from tests.toys import workspace

Photos = dict[str, dict[str, list[bytes]]]  # split -> class -> encoded photos


def class_folders(path: Path) -> Photos:
    """A zip of class folders, or such folders."""
    photos: dict[str, list[bytes]] = defaultdict(list)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if is_image(file.name):
                photos[file.parent.name].append(file.read_bytes())
    else:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if is_image(name):
                    photos[PurePosixPath(name).parent.name].append(archive.read(name))
    return {"train": dict(photos)}


def coarse_cifar(path: Path) -> Photos:
    """The python archive of CIFAR-100 with its coarse labels; its test images are a split of their own."""
    photos: Photos = {}
    with tarfile.open(path) as archive:

        def member(name: str) -> dict[bytes, Any]:
            file = archive.extractfile(f"cifar-100-python/{name}")
            assert file is not None
            values: dict[bytes, Any] = pickle.load(file, encoding="bytes")
            return values

        names = [name.decode() for name in member("meta")[b"coarse_label_names"]]
        for split in ("train", "test"):
            values = member(split)
            classes = photos.setdefault(split, defaultdict(list))
            for pixels, label in zip(values[b"data"], values[b"coarse_labels"], strict=True):
                image = np.ascontiguousarray(pixels.reshape(3, 32, 32).transpose(1, 2, 0)[..., ::-1])
                classes[names[label]].append(cv2.imencode(".png", image)[1].tobytes())
    return photos


def drawn(photos: Photos, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """(split, class, photo) of a random subset."""
    random_numbers = random.Random(seed)
    fewest = min(map(len, photos["train"].values()))
    most = min(60, fewest if "test" in photos else fewest * 3 // 4)
    count = round(5 * (most / 5) ** random_numbers.random())
    print(f"subset {seed}: {len(photos['train'])} classes, {count} photos each", file=sys.stderr, flush=True)
    for label, files in sorted(photos["train"].items()):
        shuffled = random_numbers.sample(files, len(files))
        yield from (("train", label, data) for data in shuffled[:count])
        yield from (("test", label, data) for data in photos.get("test", {}).get(label, shuffled[count:])[:100])


def write_subset(folder: Path, photos: Photos, seed: int) -> None:
    """The photos of a subset as `train/` beside a table `train.csv`."""
    (folder / "train").mkdir(parents=True)
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "label", "split"])
        for index, (split, label, data) in enumerate(drawn(photos, seed)):
            (folder / "train" / f"{index:05d}.png").write_bytes(data)  # what is inside decides, not the ending
            table.writerow([f"{index:05d}.png", label, split])


def compare(recipe: str, path: Path, subsets: int, fixed: list[str]) -> None:
    photos = coarse_cifar(path) if path.name.startswith("cifar-100") else class_folders(path)
    runs: list[Figures] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "clone"
        workspace.make(folder, recipe)
        values = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
        values["normalize"].pop("labels", None)
        for key, value in pairs(fixed):
            assign(values, key, number(value))
        for seed in range(subsets):
            where = Path(name) / f"photos-{seed}"
            write_subset(where, photos, seed)
            values["fetch"] = {"photos": {"source": "csv", "path": str(where), "split_column": "split"}}
            values["seed"] = seed
            assign(values, "fine_tune.margin", 0)
            alone = one_run(folder, values, with_logistic=True)
            assign(values, "fine_tune.margin", 2)
            shipped = one_run(folder, values, with_logistic=False)
            runs.append(alone | {"shipped": shipped["fine_tune"], "ships": shipped["kept"]})
            print(runs[-1], file=sys.stderr, flush=True)
    for key in ("warm_up", "fine_tune", "logistic", "shipped"):
        print(f"{key:<10} {interval([run[key] for run in runs])}")
    for key in ("warm_up", "fine_tune", "logistic"):
        print(f"shipped - {key:<10} {interval([run['shipped'] - run[key] for run in runs])}")
    best = [run["shipped"] - max(run["warm_up"], run["fine_tune"], run["logistic"]) for run in runs]
    print(f"shipped - the best of the three at each subset, by test: {interval(best)}")
    print(f"the fine-tune, or half of it, ships at {sum(run['ships'] for run in runs):.0f} of {len(runs)} subsets")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the name of a file in recipes/, without .yaml")
    parser.add_argument("photos", type=Path, help="class folders, a zip of them, or CIFAR-100's python archive")
    parser.add_argument("--subsets", type=int, default=5)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="keys that every run has")
    chosen = parser.parse_args()
    compare(chosen.recipe, chosen.photos, chosen.subsets, chosen.set)
