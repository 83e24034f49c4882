"""Measures `apps.predict` on many photos: the share of the time spent in the model, and two cores against one.

    python -m benchmarks.predict MODEL [--photos 1000] [--rounds 5]

The photos are JPEGs of 500x375 of smooth noise, about as large as real ones. A model predicts them through
`temper.inference.models.answers`, as in the app. Each round runs on one core and on two cores in turn, each in a
process of its own. The time spent in the model is how long its caller waits for it on two cores. `cores` is the
processor time that two cores really provided per second: if it is low because others use the machine, the ratio means
little.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from temper.inference.models import Models, Prepared, answers
from temper.inference.named_photos import expand, read
from temper.parallel import ordered_map


def jpeg(path: Path) -> None:
    random = np.random.default_rng(int(path.stem))
    coarse = random.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    photo = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    photo += random.integers(-20, 20, photo.shape, dtype=np.int16)
    path.write_bytes(bytes(cv2.imencode(".jpg", np.clip(photo, 0, 255).astype(np.uint8))[1]))


class Timed(Models):
    """Models that know how many seconds their caller waited for them."""

    seconds = 0.0

    def _probabilities(self, photos: Sequence[Prepared]) -> np.ndarray:
        start = time.perf_counter()
        found = super()._probabilities(photos)
        self.seconds += time.perf_counter() - start
        return found


def measure(model: str, folder: str, cores: int) -> dict[str, float]:
    """One run on so many cores, in this process: wall seconds, those in the model, and processor seconds."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    models = Timed([model], None)
    warm = list(expand([folder]))[:64]  # what is loaded, or compiled, at the first photos is not counted
    for _ in answers(models, read(warm)):
        pass
    models.seconds = 0.0
    start, of_process = time.perf_counter(), time.process_time()
    for _ in answers(models, read(expand([folder]))):
        pass
    wall, processor = time.perf_counter() - start, time.process_time() - of_process
    return {"wall": wall, "model": models.seconds, "processor": processor}


def main(model: str, count: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for _ in ordered_map(jpeg, (Path(folder) / f"{number:06}.jpg" for number in range(count))):
            pass
        ratios, shares = [], []
        for _ in range(rounds):
            one, two = (run(model, folder, cores) for cores in (1, 2))
            ratios.append(one["wall"] / two["wall"])
            shares.append(two["model"] / two["wall"])
            print(
                f"{count} photos: {one['wall']:.1f} s on one core, {two['wall']:.1f} s on two ({ratios[-1]:.2f}); "
                f"in the model {shares[-1]:.0%}; {two['processor'] / two['wall']:.2f} cores"
            )
        print(f"median: {statistics.median(ratios):.2f} with two cores, {statistics.median(shares):.0%} in the model")


def run(model: str, folder: str, cores: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.predict", model, "--measure", folder, "--cores", str(cores)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--cores", type=int, default=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.model, arguments.measure, arguments.cores)))
    else:
        main(arguments.model, arguments.photos, arguments.rounds)
