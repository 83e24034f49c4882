"""Views of images that are drawn once, for what is computed of them once: the plain image, then augmented ones."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from temper.augmentation.augment import Magnitudes, augment_images
from temper.batches import INFERENCE_BATCH, Indices
from temper.devices import divisible
from temper.packs import Pack


def batches(ends: list[int]) -> Iterator[Indices]:
    """The rows of each batch, in order; a batch ends with its shard, so that no other shard's images are in it.

    Args:
        ends: the number of the row after each shard's last one.
    """
    for start, end in pairwise([0, *ends]):
        for first in range(start, end, INFERENCE_BATCH):
            yield np.arange(first, min(first + INFERENCE_BATCH, end))


def seen(pack: Pack, rows: Indices, view: int, magnitude: Magnitudes, seed: int, on: int = 1) -> npt.NDArray[np.uint8]:
    """Images of a pack as one view sees them: uint8 (INFERENCE_BATCH, height, width, 3), black behind the last one.

    They are as many more as it takes to share them out equally on so many devices.

    Batches of one size are compiled once, and what the backbone says of an image does not depend on their number. How
    an image is augmented follows from its image_id: a row would be another one where images are added before it.

    Args:
        view: 0 is the plain image; others are augmented, each in its own way.
        on: devices.
    """
    size = divisible(INFERENCE_BATCH, on)
    images = np.zeros((size, *pack.image_shape), np.uint8)
    images[: len(rows)] = pack.images(rows)
    if view:
        numbers = np.array([int(image_id, 16) >> 1 for image_id in pack.image_ids[rows].tolist()], np.int64)
        augment_images(images[: len(rows)], numbers, magnitude, seed, view)
    return images
