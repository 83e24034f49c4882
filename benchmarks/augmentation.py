"""Measures the cost of each augmentation, in images per second of processor time, and relative to the default.

    python -m benchmarks.augmentation [--side 224] [--images 64] [--rounds 7]

Each round runs all kinds in turn on one thread; printed are the median of the rounds and their range. Mixing includes
the mixing of targets. Expected at 224 pixels: the default takes 0.65 ms an image. In addition to that, a crop costs
nothing, mixing and erasing a tenth to a fifth of its time, and RandAugment half of it.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from temper.augmentation.augment import PLACES, augment_images, magnitudes
from temper.mixing import mix_images, mixed_targets, plan
from temper.settings.mixing import MixedAugmentation

AUG = 0.1  # of the default
# The usual values; those of the first seven are AUG.
USUAL: dict[str, object] = dict.fromkeys(list(PLACES)[:7], AUG) | {
    "vertical_flip": 1,
    "crop": 0.92,
    "grayscale": 0.2,
    "blur": 0.1,
    "jpeg": 0.5,
    "erasing": 0.4,
    "randaugment": {},
    "mixup": 0.2,
    "cutmix": 1.0,
}
COMBINATIONS: dict[str, tuple[float, dict[str, object]]] = {
    "default": (AUG, {}),
    "default, crop": (AUG, {"crop": 0.92}),
    "default, erasing, mixup, cutmix": (AUG, {"erasing": 0.4, "mixup": 0.2, "cutmix": 1.0}),
    "crop, flip, randaugment, erasing": (0, {"crop": 0.92, "flip": 1, "randaugment": {}, "erasing": 0.4}),
    "default, randaugment": (AUG, {"randaugment": {}}),
}


def photos(side: int, count: int) -> npt.NDArray[np.uint8]:
    """Images of smooth noise: uint8 (count, side, side, 3)."""
    random = np.random.default_rng(0)
    rough = random.integers(0, 256, (count, 12, 12, 3)).astype(np.uint8)
    return np.stack([cv2.resize(one, (side, side), interpolation=cv2.INTER_CUBIC) for one in rough])


def one_way(images: npt.NDArray[np.uint8], aug: float, chosen: dict[str, object]) -> Callable[[int], float]:
    """A function that augments all images once, and returns how many processor seconds that took."""
    alone = MixedAugmentation.model_validate(chosen)
    magnitude, rows = magnitudes(aug, alone), np.arange(len(images))
    size = images.shape[1], images.shape[2]
    targets = np.eye(100, dtype=np.float32)[rows % 100]

    def measured(number: int) -> float:
        changed = images.copy()
        start = time.process_time()
        augment_images(changed, rows, magnitude, 0, number)
        planned = plan(len(changed), *size, alone, 0, number, 0)
        if planned is not None:
            mix_images(changed, planned)
            mixed_targets(targets, planned)
        return time.process_time() - start

    return measured


def main(side: int, count: int, rounds: int) -> None:
    cv2.setNumThreads(1)
    images = photos(side, count)
    ways = {f"{name} alone": one_way(images, 0, {name: value}) for name, value in USUAL.items()}
    ways |= {name: one_way(images, aug, chosen) for name, (aug, chosen) in COMBINATIONS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):  # the first one warms up
        for name, measured in ways.items():
            seconds[name].append(measured(number))
    typical = {name: statistics.median(of_way[1:]) / count for name, of_way in seconds.items()}
    for name, of_way in seconds.items():
        slowest, fastest = count / max(of_way[1:]), count / min(of_way[1:])
        ratio = typical[name] / typical["default"]
        print(
            f"{name:34} {1 / typical[name]:7,.0f} images/s ({slowest:,.0f} to {fastest:,.0f}), {ratio:.2f} of default"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    main(arguments.side, arguments.images, arguments.rounds)
