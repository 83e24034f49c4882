"""Measures the stage `pack`: two threads against one, and its peak memory with 20,000 photos of 500x375.

    python -m benchmarks.pack [--photos 20000] [--rounds 3]

The photos are JPEGs of smooth noise, about as large as real ones. They are decoded and resized to 224 in this process,
with one thread and with two threads in turn. Then the whole stage runs as a process of its own, and its largest
resident set is read.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import chdir
from pathlib import Path

import cv2
import numpy as np

from stages.fetch.__main__ import describe
from stages.fetch.source import Photo
from stages.pack import prepared
from temper import images, raw, tables
from temper.base import loading
from temper.parallel import ordered_map
from temper.settings.pack import Settings
from tests.toys import workspace


def jpeg(number: int) -> bytes:
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    photo = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    photo += random.integers(-20, 20, photo.shape, dtype=np.int16)
    return bytes(cv2.imencode(".jpg", np.clip(photo, 0, 255).astype(np.uint8))[1])


def write_raw(folder: Path, count: int) -> None:
    with raw.RawWriter(folder) as writer:
        for number, data in enumerate(ordered_map(jpeg, range(count))):
            writer.append(describe(Photo(f"{number % 5}/{number}.jpg", str(number % 5), None, data)))


def main(count: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workspace.make(folder, "digits", image_size=224)  # whose source, `digits`, is replaced by the photos
        photos = folder / raw.FOLDER / "digits"
        photos.mkdir(parents=True)
        write_raw(photos, count)
        workspace.run(folder, "python -m stages.normalize")
        workspace.run(folder, "python -m stages.detect")
        table = tables.read(folder / images.PATH, images.IMAGES).slice(0, 2000)
        settings = loading.load(Settings, folder / "params.yaml")
        ratios = []
        for _ in range(rounds):
            seconds = []
            for threads in (1, 2):
                start = time.perf_counter()
                with chdir(folder):
                    for _ in prepared(table, {}, settings, threads):
                        pass
                seconds.append(time.perf_counter() - start)
            ratios.append(seconds[0] / seconds[1])
            print(f"{len(table)} photos: {seconds[0]:.1f} s with one thread, {seconds[1]:.1f} s with two")
        print(f"median speed-up with two threads: {statistics.median(ratios):.2f}")
        before = workspace.peak_memory_of_children()
        seconds_all = workspace.run(folder, "python -m stages.pack")
        after = workspace.peak_memory_of_children()
        note = "" if after > before else " at most (a child before it had as much)"
        print(f"{count} photos packed in {seconds_all:.0f} s, peak memory {after:.0f} MB{note}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.photos, arguments.rounds)
