"""Measures the detector `yolox`: two threads against one, and the share of the time spent in OpenCV's networks.

    python -m benchmarks.detect WEIGHTS PHOTOS [--rounds 5] [--repeat 4]

WEIGHTS is for example `../shared/weights/yolox_nano.onnx`, and PHOTOS a folder of JPEGs. They are read from a raw table
as in the stage, but without the cache. Each round runs one thread and two threads in turn; the ratio is that of their
wall times. The time in cv2.dnn (the network and its blobs) is the processor time of the threads, as a share of that of
the whole process.

The ratio is meaningful only on a machine that does nothing else: `cores` is the processor time that two threads really
got per second.
"""

import argparse
import hashlib
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from stages.detect import detector
from stages.detect.detectors.yolox import Settings, YoloxDetector
from stages.fetch.__main__ import describe
from stages.fetch.source import Photo
from temper import raw, yolox

SOURCE = "photos"  # below the folder of raw tables


def write_raw(folder: Path, photos: Path) -> int:
    paths = sorted(photos.glob("*.jpg"))
    (folder / SOURCE).mkdir()
    with raw.RawWriter(folder / SOURCE) as writer:
        for path in paths:
            writer.append(describe(Photo(path.name, None, None, path.read_bytes())))
    return len(paths)


def read(folder: Path, repeat: int) -> Any:
    wanted = raw.read_metadata([SOURCE], folder)
    for number in range(repeat):
        for path, data in zip(wanted["path"].to_pylist(), raw.stream_images(wanted, folder), strict=True):
            yield detector.Photo(f"{number}-{path}", path, data)


def main(weights: Path, photos: Path, rounds: int, repeat: int) -> None:
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    settings = Settings(detector="yolox", weights=str(weights), sha256=sha256)
    in_networks: list[float] = []
    forward = yolox.forward

    def timed(network: Any, framed: Any) -> Any:
        start = time.thread_time()
        output = forward(network, framed)
        in_networks.append(time.thread_time() - start)
        return output

    yolox.forward = timed
    with tempfile.TemporaryDirectory() as name:
        count = write_raw(Path(name), photos) * repeat
        ratios, shares = [], []
        for _ in range(rounds):
            seconds = []
            for threads in (1, 2):
                detect = YoloxDetector(settings, threads).detect
                in_networks.clear()
                start, start_of_process = time.perf_counter(), time.process_time()
                found = sum(1 for _ in detect(read(Path(name), repeat)))
                seconds.append(time.perf_counter() - start)
                of_process = time.process_time() - start_of_process
                shares.append(sum(in_networks) / of_process)
                assert found == count
            ratios.append(seconds[0] / seconds[1])
            print(
                f"{count} photos: {count / seconds[0]:.1f} a second with one thread, {count / seconds[1]:.1f} with two "
                f"({of_process / seconds[1]:.2f} cores); {shares[-2]:.1%} and {shares[-1]:.1%} of the time in cv2.dnn"
            )
    print(f"median speed-up with two threads: {statistics.median(ratios):.2f}")
    print(f"median share of the time in cv2.dnn: {statistics.median(shares):.1%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=4)
    arguments = parser.parse_args()
    main(arguments.weights, arguments.photos, arguments.rounds, arguments.repeat)
