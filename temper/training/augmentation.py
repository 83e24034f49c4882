"""Augmentation: a photo changed at random, the same way whenever seed, epoch and image are the same.

Done on the CPU in plain OpenCV, image by image, from random numbers of its own for each image: unlike layers with a
hidden random state it needs nothing saved to go on bit-identically after a kill, and any Keras backend may train on it.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from temper.settings.augmentation import Augmentation

Pixels = npt.NDArray[np.uint8]  # (height, width, 3), RGB


@dataclass(frozen=True)
class Magnitudes:
    """How strongly each transformation acts, 0 (not at all) to 1, in the terms of Keras's random layers.

    Attributes:
        flip: above 0, every second image is mirrored left to right.
        rotation: up to this part of a full turn, either way.
        zoom: up to this fraction larger or smaller.
        translation: up to this fraction of the height and width.
        brightness: up to this fraction of 255 added or taken away.
        contrast: up to this fraction more or less difference from the image's mean.
        hue: up to half this part of the colour circle, either way.
    """

    flip: float
    rotation: float
    zoom: float
    translation: float
    brightness: float
    contrast: float
    hue: float

    @property
    def any(self) -> bool:
        """Whether anything is changed at all."""
        return any(vars(self).values())


def magnitudes(aug: float, alone: Augmentation) -> Magnitudes:
    """`aug` for every transformation but those that are set alone."""
    chosen = {name: getattr(alone, name) for name in Magnitudes.__dataclass_fields__}
    return Magnitudes(**{name: aug if value is None else value for name, value in chosen.items()})


def augment(pixels: Pixels, magnitude: Magnitudes, random: np.random.Generator) -> Pixels:
    """A changed copy of an image, uint8 (height, width, 3) RGB; what is moved into view is a mirror image of the edge.

    Args:
        random: always advanced by the same count of numbers, so that setting one magnitude to 0 leaves the others'
            draws as they were.
    """
    draw = random.uniform(-1, 1, 8)
    return _recolour(_move(pixels, magnitude, draw[:5]), magnitude, draw[5:])


def augment_images(
    images: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64], magnitude: Magnitudes, seed: int, epoch: int
) -> None:
    """Changes images in place, each by random numbers that follow from the seed, the epoch (or view) and its number.

    Args:
        images: uint8 (n, height, width, 3) RGB.
        rows: int64 (n,), a number for each image: its row in the pack, or one that follows from its image_id.
    """
    if magnitude.any:
        for row, image in zip(rows, images, strict=True):
            image[:] = augment(image, magnitude, np.random.default_rng([seed, epoch, int(row)]))


def _move(pixels: Pixels, magnitude: Magnitudes, draw: np.ndarray) -> Pixels:
    """Flip, rotation, zoom and translation in one interpolation."""
    height, width = pixels.shape[:2]
    if not (magnitude.rotation or magnitude.zoom or magnitude.translation):
        flipped = magnitude.flip and draw[0] < 0
        return np.ascontiguousarray(pixels[:, ::-1]) if flipped else pixels.copy()
    centre = ((width - 1) / 2, (height - 1) / 2)
    turn = cv2.getRotationMatrix2D(centre, 360 * magnitude.rotation * draw[1], 1 + magnitude.zoom * draw[2])
    turn[:, 2] += magnitude.translation * draw[3] * width, magnitude.translation * draw[4] * height
    if magnitude.flip and draw[0] < 0:
        turn = turn @ np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]], float)
    moved: Pixels = cv2.warpAffine(pixels, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return moved


def _recolour(pixels: Pixels, magnitude: Magnitudes, draw: np.ndarray) -> Pixels:
    """Hue, then contrast around the image's mean, then brightness."""
    if magnitude.hue:
        hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
        hsv[..., 0] += np.uint8(round(128 * magnitude.hue * draw[2]) % 256)  # a full turn is 256: it wraps around
        pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    if magnitude.contrast or magnitude.brightness:
        mean = pixels.mean()
        contrasted = (np.arange(256) - mean) * (1 + magnitude.contrast * draw[1]) + mean
        levels = contrasted + 255 * magnitude.brightness * draw[0]
        pixels = cv2.LUT(pixels, np.clip(np.rint(levels), 0, 255).astype(np.uint8))
    return pixels
