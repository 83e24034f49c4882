"""Compares decoding large JPEGs at a reduced and at full size, for `prepare` at 224 pixels and for the look of `fetch`.

    python -m benchmarks.photos [flowers.zip] [--photos 4] [--rounds 7]

The photos have 4000x3000 pixels. They are real photos of a zip archive or, without one, smooth noise, enlarged and with
added sensor grain. Both ways run in turn, measured in processor time of one thread.
Expected for files of 2 MB: `prepare` is at least 3 times as fast, the look at least 2.5 times. Reading the bytes takes
the same time both ways, some 8 ms for each MB, so larger files gain less and smaller ones more.
"""

import argparse
import statistics
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from temper.photos import HASHED, Pixels, decode, decode_with_dimensions, perceptual_hash, resize
from temper.preparation import Preparation, prepare

PREPARATION = Preparation(224, 224, "crop", 0.1)
KINDS = {"light": (2, 90), "usual": (4, 92), "heavy": (4, 95)}  # the grain's deviation of 255, JPEG's quality


def small_photos(archive: Path | None, count: int) -> list[Pixels]:
    """Some photos of an archive, evenly spaced, or smooth noise."""
    if archive is None:
        random = np.random.default_rng(0)
        return [random.integers(0, 256, (48, 64, 3)).astype(np.uint8) for _ in range(count)]
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if name.lower().endswith((".jpg", ".jpeg")))
        return [decode(opened.read(names[number * len(names) // count])) for number in range(count)]


def large_jpeg(photo: Pixels, grain: float, quality: int) -> bytes:
    """A JPEG of 4000x3000 with a photo's content."""
    random = np.random.default_rng(0)
    large = cv2.resize(photo, (4000, 3000), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    large += random.normal(0, grain, large.shape).astype(np.float32)
    bgr = large[..., ::-1].clip(0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def full_prepare(data: bytes) -> Pixels:
    return resize(decode(data), PREPARATION.height, PREPARATION.width, PREPARATION.fit)


def milliseconds(function: Callable[[bytes], object], photos: list[bytes]) -> float:
    """Processor time of one photo, on average."""
    start = time.process_time()
    for data in photos:
        function(data)
    return (time.process_time() - start) / len(photos) * 1000


def compare(
    name: str,
    full: Callable[[bytes], object],
    reduced: Callable[[bytes], object],
    photos: list[bytes],
    rounds: int,
) -> None:
    """Prints how many times as fast the reduced way is."""
    times = [(milliseconds(full, photos), milliseconds(reduced, photos)) for _ in range(rounds)]
    ratios = [before / after for before, after in times]
    before, after = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"  {name}: {before:.1f} ms the full way, {after:.1f} ms reduced: {statistics.median(ratios):.2f} times as "
        f"fast ({min(ratios):.2f} to {max(ratios):.2f} in {rounds} rounds)",
        flush=True,
    )


def main(archive: Path | None, count: int, rounds: int) -> None:
    cv2.setNumThreads(1)
    small = small_photos(archive, count)
    for kind, (grain, quality) in KINDS.items():
        photos = [large_jpeg(photo, grain, quality) for photo in small]
        print(f"{kind}: {count} JPEGs of 4000x3000, {sum(map(len, photos)) / count / 1e6:.1f} MB each")
        compare("prepare", full_prepare, lambda data: prepare(data, PREPARATION), photos, rounds)
        compare(
            "look",
            lambda data: perceptual_hash(decode(data)),
            lambda data: perceptual_hash(decode_with_dimensions(data, HASHED)[0]),
            photos,
            rounds,
        )
        differences = [np.abs(prepare(data, PREPARATION).astype(int) - full_prepare(data)).mean() for data in photos]
        bits = [(perceptual_hash(decode(data, HASHED)) ^ perceptual_hash(decode(data))).bit_count() for data in photos]
        print(
            f"  prepare differs by {np.mean(differences):.2f} of 255 on average, at most by {max(differences):.2f}; ",
            end="",
        )
        print(f"of the look's 64 bits at most {max(bits)} differ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, nargs="?")
    parser.add_argument("--photos", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    main(arguments.archive, arguments.photos, arguments.rounds)
