"""Measures the cost of each augmentation, in images per second of processor time, and relative to the default.

    python -m benchmarks.augmentation [--side 224] [--images 64] [--rounds 7]

Each round runs all kinds in turn on one thread; printed are the median of the rounds and their range. Mixing includes
the mixing of targets. The last two ways are `fine_tune.augment_on: device`: what the host still does, and what the
device does, here on the processor. Then it prints how far their images are apart from those of the host. Expected at
224 pixels: the default takes 0.4 to 0.65 ms an image. In addition to that, a crop costs nothing, mixing and erasing a
tenth to a fifth of its time, and RandAugment half of it.
"""

import argparse
import os
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


def print_differences(images: npt.NDArray[np.uint8]) -> None:
    """Prints how far the images that a device makes are from those of the host, in levels of 255."""
    from stages.fine_tune.on_device import changed, draw_numbers  # noqa: PLC0415

    rows, size = np.arange(len(images)), (images.shape[1], images.shape[2])
    for name, chosen in (("default", {}), ("default, hue: 0", {"hue": 0})):
        magnitude, expected = magnitudes(AUG, MixedAugmentation.model_validate(chosen)), images.copy()
        augment_images(expected, rows, magnitude, 0, 0)
        drawn = draw_numbers(rows, np.zeros_like(rows), size, magnitude, 0, 0)
        apart = np.abs(np.asarray(changed(images, drawn, magnitude, mixes=False)) - expected)
        print(f"{name}: the device's values differ by {apart.mean():.5f} on average and {apart.max():.0f} at most")


def on_device(images: npt.NDArray[np.uint8], computes: bool) -> Callable[[int], float]:
    """The same for the default where a device augments: drawing its numbers, or with `computes` what it does then."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import tensorflow as tf  # noqa: PLC0415

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from stages.fine_tune.on_device import changed, draw_numbers  # noqa: PLC0415

    magnitude, rows = magnitudes(AUG, MixedAugmentation()), np.arange(len(images))
    size = images.shape[1], images.shape[2]
    compiled = tf.function(lambda pixels, drawn: changed(pixels, drawn, magnitude, mixes=False))

    def measured(number: int) -> float:
        start = time.process_time()
        drawn = draw_numbers(rows, np.zeros_like(rows), size, magnitude, 0, number)
        if computes:
            start = time.process_time()
            compiled(images, drawn).numpy()
        return time.process_time() - start

    return measured


def main(side: int, count: int, rounds: int) -> None:
    cv2.setNumThreads(1)
    images = photos(side, count)
    ways = {f"{name} alone": one_way(images, 0, {name: value}) for name, value in USUAL.items()}
    ways |= {name: one_way(images, aug, chosen) for name, (aug, chosen) in COMBINATIONS.items()}
    ways |= {"default, numbers for the device": on_device(images, computes=False)}
    ways |= {"default, on the device": on_device(images, computes=True)}
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
    print_differences(images)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    main(arguments.side, arguments.images, arguments.rounds)
