"""Measures the cost of each stage per image at three sizes, and the cost of 30 added photos, for docs/scale.md.

    python -m benchmarks.scale [--photos 500 2000 8000] [--rounds 2] [--yolox yolox_nano.onnx]

The photos are JPEGs of 500x375 of smooth noise, some 120 kB each, in ten class folders. The model is MobileNetV2 (alpha
0.35) at 224 pixels, with ten epochs of warm-up and one of fine-tune from block_13 on. Each stage runs as a process of
its own, without DVC. Processor time is the user and system time of the process and its children. Memory is the largest
resident set without mapped files, which the system can reclaim when it needs space. Linux only.

The time of a stage consists of a start, which is the same for all sizes, and a time for each image. The latter is
computed from two sizes: the difference of the times divided by the difference of the numbers of images. If the second
of the two columns is larger, the time of the stage grows faster than the number of images. `spread` is the spread of
the times at the smallest size, which runs --rounds times.
"""

import argparse
import hashlib
import itertools
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.pack import jpeg
from temper.parallel import ordered_map
from tests.toys import workspace

STAGES = ["fetch", "normalize", "audit", "detect", "pack", "gallery", "backbone", "embed"]
STAGES += ["cross_validate", "warm_up", "fine_tune", "evaluate", "export", "overview"]
BEFORE_TRAINING = ("fetch", "normalize", "detect", "pack")
CLASSES = 10
NEW = 30
WEIGHTS = "models/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"


@dataclass(frozen=True)
class Cost:
    """The cost of a run of a stage: processor seconds, wall seconds, MB of memory."""

    processor: float
    clock: float
    memory: float


def run_stage(folder: Path, stage: str) -> Cost:
    """Runs a stage by hand in a workspace."""
    command = [sys.executable, "-m", f"stages.{stage}", *(["photos"] if stage == "fetch" else [])]
    start, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT
        )
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, anonymous_memory(process.pid))
            time.sleep(0.02)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            printed.seek(0)
            sys.exit(f"{stage}: {process.returncode}\n{printed.read()}")
    return Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - start, peak)


def anonymous_memory(pid: int) -> float:
    """The resident set of a process without mapped files, in MB; 0 if the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:")), 0.0)


def write_photos(folder: Path, numbers: Sequence[int], one_class: bool = False) -> None:
    """Writes photos into class folders. Their names sort new photos between old ones, as names from cameras do."""
    for number, data in zip(numbers, ordered_map(jpeg, numbers), strict=True):
        name = hashlib.sha256(str(number).encode()).hexdigest()[:12]
        path = folder / f"class {0 if one_class else number % CLASSES}" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def make_workspace(folder: Path, photos: Path) -> None:
    weights = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / WEIGHTS
    workspace.make(
        folder,
        "folder",
        fetch={"photos": {"source": "folder", "path": str(photos)}},
        backbone={
            "name": "MobileNetV2",
            "arguments": {"alpha": 0.35},
            "weights": "imagenet" if weights.exists() else "none",
        },
        embed__views=1,
        warm_up={"epochs": 10},
        fine_tune__epochs=1,
    )


def bytes_of(folder: Path, stage: str) -> int:
    """The size of a stage's outputs on disk, in bytes."""
    written = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]
    written = written.get("do", written)
    paths: list[Any] = [out for kind in ("outs", "metrics", "plots") for out in written.get(kind, [])]
    names = [next(iter(out)) if isinstance(out, dict) else out for out in paths]
    return sum(size_of(folder / name.replace("${key}", "photos")) for name in names)


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [inside for inside in path.rglob("*") if inside.is_file()]
    return sum(file.stat().st_size for file in files)


def measure(folder: Path, photos: Path, rounds: int) -> dict[str, list[Cost]]:
    """The costs of each stage, run by run."""
    make_workspace(folder, photos)
    costs: dict[str, list[Cost]] = {stage: [] for stage in STAGES}
    run_stage(folder, "backbone")  # the first stage that runs checks the names of its layers, which takes Keras
    for _ in range(rounds):
        shutil.rmtree(folder / ".temper/looks", ignore_errors=True)  # what was known of these photos
        for stage in STAGES:
            costs[stage].append(run_stage(folder, stage))
    return costs


def print_costs(sizes: list[int], costs: list[dict[str, list[Cost]]], folders: list[Path]) -> None:
    """Prints a row for each stage."""
    steps = list(itertools.pairwise(sizes))
    names = [f"ms an image, {few:,} to {many:,}" for few, many in steps]
    print(f"| stage | start, s | {' | '.join(names)} | spread | memory at {', '.join(map(str, sizes))}, MB | bytes |")
    print(f"|{'---|' * (5 + len(steps))}")
    for stage in STAGES:
        times = [statistics.median(cost.processor for cost in of_size[stage]) for of_size in costs]
        each = [(times[i + 1] - times[i]) / (many - few) for i, (few, many) in enumerate(steps)]
        start = times[0] - sizes[0] * each[0] if each else times[0]
        first = [cost.processor for cost in costs[0][stage]]
        spread = f"{(max(first) - min(first)) / statistics.median(first):.0%}"
        memory = ", ".join(f"{max(cost.memory for cost in of_size[stage]):.0f}" for of_size in costs)
        disk = (bytes_of(folders[-1], stage) - bytes_of(folders[0], stage)) / max(1, sizes[-1] - sizes[0])
        columns = [f"{start:.1f}", *(f"{1000 * one:.2f}" for one in each), spread, memory, f"{disk:,.0f}"]
        print(f"| `{stage}` | {' | '.join(columns)} |", flush=True)


def print_growth(folder: Path, photos: Path, count: int, first: dict[str, list[Cost]]) -> None:
    """Adds 30 photos to one class, then 30 to all, and prints what each stage that comes before training costs."""
    workspace.run(folder, "dvc commit -f -q")
    cache = folder / ".dvc/cache"
    print(f"\nthe cache of {count:,} photos: {size_of(cache) / 1e6:,.0f} MB, its models and tables included")
    for where, start, one_class in (("in one class", 10**6, True), ("in every class", 2 * 10**6, False)):
        write_photos(photos, random.Random(start).sample(range(start, start + 10**5), NEW), one_class)
        for stage in BEFORE_TRAINING:
            outputs = [path for path in (folder / "data").rglob("*") if path.is_file()]
            before, cost = size_of(cache), run_stage(folder, stage)
            workspace.run(folder, f"dvc commit -f -q {'fetch@photos' if stage == 'fetch' else stage}")
            added, written = size_of(cache) - before, bytes_of(folder, stage)
            print(
                f"{NEW} photos {where}: {stage} {cost.processor:.1f} s of processor time, at first "
                f"{first[stage][-1].processor:.1f} s; {added / 1e6:.1f} MB of {written / 1e6:,.0f} MB are new to the "
                f"cache, {len(outputs)} files below data",
                flush=True,
            )


def print_detector(folder: Path, weights: Path, count: int) -> None:
    """Runs `detect` with YOLOX on the photos of a workspace."""
    path = folder / "params.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    values["detect"] = {"detector": "yolox", "weights": str(weights.resolve()), "sha256": sha256}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    first, again = run_stage(folder, "detect"), run_stage(folder, "detect")
    each = (first.processor - again.processor) / count * 1000
    print(f"\ndetect with {weights.name}: {each:.0f} ms an image, {first.memory:.0f} MB; again {again.processor:.1f} s")


def main(sizes: list[int], rounds: int, yolox: Path | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        below = Path(name)
        costs: list[dict[str, list[Cost]]] = []
        folders: list[Path] = []
        for count in sizes:
            photos, folder = below / f"photos-{count}", below / str(count)
            write_photos(photos, range(count))
            costs.append(measure(folder, photos, 1 if folders else rounds))
            folders.append(folder)
            took = sum(cost.clock for of_stage in costs[-1].values() for cost in of_stage)
            print(f"{count} photos: {took:.0f} s", file=sys.stderr, flush=True)
        params = yaml.safe_load((folders[0] / "params.yaml").read_text(encoding="utf-8"))
        print(f"backbone weights: {params['backbone']['weights']}")
        print_costs(sizes, costs, folders)
        print_growth(folders[-1], below / f"photos-{sizes[-1]}", sizes[-1], costs[-1])
        if yolox:
            print_detector(folders[0], yolox, sizes[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, nargs="+", default=[500, 2000, 8000])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--yolox", type=Path, help="weights, to measure a detector too")
    arguments = parser.parse_args()
    main(arguments.photos, arguments.rounds, arguments.yolox)
