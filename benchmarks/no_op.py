"""Compares a `dvc repro` that has nothing to do on 60,000 images with one on 600 images, interleaved.

    python -m benchmarks.no_op [--rounds 5]

The images are CIFAR-sized PNGs of noise in a zip of ten class folders. The whole pipeline runs on them, with one epoch
per phase.
"""

import argparse
import statistics
import tempfile
import zipfile
from pathlib import Path

import cv2
import numpy as np

from tests.toys import workspace


def write_photos(path: Path, count: int) -> None:
    random = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number in range(count):
            png = cv2.imencode(".png", random.integers(0, 256, (32, 32, 3)).astype(np.uint8))[1]
            archive.writestr(f"photos/{number % 10}/{number:05}.png", png.tobytes())


def main(rounds: int) -> None:
    counts = (600, 60_000)
    with tempfile.TemporaryDirectory() as name:
        folders = {count: Path(name) / str(count) for count in counts}
        for count, folder in folders.items():
            photos = Path(name) / f"{count}.zip"
            write_photos(photos, count)
            fetch = {"photos": {"source": "folder", "path": str(photos)}}
            workspace.make(folder, "digits", fetch=fetch, warm_up__epochs=1, fine_tune__epochs=1)
            print(f"{count} images: first run {workspace.run(folder, 'dvc repro'):.0f} s")
        seconds: dict[int, list[float]] = {count: [] for count in counts}
        for _ in range(rounds):
            for count, folder in folders.items():
                seconds[count].append(workspace.run(folder, "dvc repro"))
        few, many = (statistics.median(seconds[count]) for count in counts)
        print(f"nothing to do: {few:.2f} s with {counts[0]}, {many:.2f} s with {counts[1]}: ratio {many / few:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    main(parser.parse_args().rounds)
