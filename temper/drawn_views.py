"""Views of images for stages that run the frozen backbone only once: the plain image, then augmented ones."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from temper.augmentation.augment import Magnitudes, augment_images
from temper.batches import INFERENCE_BATCH, Indices
from temper.devices import divisible
from temper.packs import Pack


def batches(ends: list[int]) -> Iterator[Indices]:
    """The rows of each batch, in order. A batch ends where its shard ends, so it never has images of two shards.

    Args:
        ends: for each shard, the number of the row after its last one.
    """
    for start, end in pairwise([0, *ends]):
        for first in range(start, end, INFERENCE_BATCH):
            yield np.arange(first, min(first + INFERENCE_BATCH, end))


def seen(pack: Pack, rows: Indices, view: int, magnitude: Magnitudes, seed: int, on: int = 1) -> npt.NDArray[np.uint8]:
    """One view of some images of a pack, filled up with black images: uint8 (INFERENCE_BATCH, height, width, 3).

    If INFERENCE_BATCH does not divide equally among the devices, there are as many more black images as it takes.

    All batches have the same size, so that the model is compiled once and an image's result does not depend on how many
    others are in its batch. The augmentation of an image follows from its image_id and not from its row, which would
    change when images are added before it.

    Args:
        view: 0 is the plain image; others are augmented, each in its own way.
        on: the number of devices that share the batch.
    """
    size = divisible(INFERENCE_BATCH, on)
    images = np.zeros((size, *pack.image_shape), np.uint8)
    images[: len(rows)] = pack.images(rows)
    if view:
        numbers = np.array([int(image_id, 16) >> 1 for image_id in pack.image_ids[rows].tolist()], np.int64)
        augment_images(images[: len(rows)], numbers, magnitude, seed, view)
    return images
