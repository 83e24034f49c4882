"""Augmentation: a photo changed at random, the same way whenever seed, epoch and image are the same.

Done on the CPU in plain OpenCV, image by image, from random numbers of its own for each image: unlike layers with a
hidden random state it needs nothing saved to go on bit-identically after a kill, and any Keras backend may train on it.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from temper.augmentation.erasing import erase
from temper.augmentation.geometry import Pixels, after, cropping, mirroring, rectangle, warp
from temper.augmentation.randaugment import MOST_OPERATIONS, randaugment
from temper.settings.augmentation import Augmentation

Draw = npt.NDArray[np.float64]  # numbers from -1 to 1
# Which of an image's random numbers are whose. Each transformation has its own, so that setting one to 0 leaves what
# the others do as it was; a new one is added at the end, so that the results of older settings keep their bits.
PLACES = {
    "flip": slice(0, 1),
    "rotation": slice(1, 2),
    "zoom": slice(2, 3),
    "translation": slice(3, 5),
    "brightness": slice(5, 6),
    "contrast": slice(6, 7),
    "hue": slice(7, 8),
    "vertical_flip": slice(8, 9),
    "crop": slice(9, 13),  # share of the area, proportions, place down and across
    "grayscale": slice(13, 14),
    "blur": slice(14, 15),
    "jpeg": slice(15, 16),
    "erasing": slice(16, 21),  # whether, share of the area, proportions, place down and across
    "randaugment": slice(21, 21 + 2 * MOST_OPERATIONS),
}
COUNT = 21 + 2 * MOST_OPERATIONS
WIDEST_CROP = 4 / 3  # of Inception's crops (Szegedy et al., arXiv:1409.4842)


@dataclass(frozen=True)
class Magnitudes:
    """How strongly each transformation acts, 0 (not at all) to 1: the first seven in the terms of Keras's layers.

    Attributes:
        flip: above 0, every second image is mirrored left to right.
        rotation: up to this part of a full turn, either way.
        zoom: up to this fraction larger or smaller.
        translation: up to this fraction of the height and width.
        brightness: up to this fraction of 255 added or taken away.
        contrast: up to this fraction more or less difference from the image's mean.
        hue: up to half this part of the colour circle, either way.
        vertical_flip: above 0, every second image is mirrored top to bottom.
        crop: up to this share of the area is cut away; what is left, from anywhere, is enlarged to the whole.
        grayscale: this share of the images loses its colour.
        blur: a Gaussian blur with a standard deviation of up to a twentieth of this fraction of the shorter side.
        jpeg: saved as a JPEG of a quality down to 100 * (1 - jpeg), with its artefacts.
        erasing: in every second image a rectangle of up to this share of the area is filled with noise.
        randaugment: the magnitude of `randaugment_ops` operations of RandAugment.
    """

    flip: float = 0
    rotation: float = 0
    zoom: float = 0
    translation: float = 0
    brightness: float = 0
    contrast: float = 0
    hue: float = 0
    vertical_flip: float = 0
    crop: float = 0
    grayscale: float = 0
    blur: float = 0
    jpeg: float = 0
    erasing: float = 0
    randaugment: float = 0
    randaugment_ops: int = 0

    @property
    def any(self) -> bool:
        """Whether anything is changed at all."""
        return any(getattr(self, name) for name in PLACES)


def magnitudes(aug: float, alone: Augmentation) -> Magnitudes:
    """`aug` for every transformation that is not set alone and has no default of its own."""
    chosen = {name: getattr(alone, name) for name in PLACES if name != "randaugment"}
    policy = alone.randaugment
    return Magnitudes(
        **{name: aug if value is None else value for name, value in chosen.items()},
        randaugment=policy.magnitude if policy else 0,
        randaugment_ops=policy.ops if policy else 0,
    )


def augment(pixels: Pixels, magnitude: Magnitudes, random: np.random.Generator) -> Pixels:
    """A changed copy of an image, uint8 (height, width, 3) RGB; what is moved into view is a mirror image of the edge.

    Args:
        random: the same numbers of it go to the same transformation, whichever others are on.
    """
    return augment_by(pixels, magnitude, random.uniform(-1, 1, COUNT), random)


def augment_by(pixels: Pixels, magnitude: Magnitudes, draw: Draw, random: np.random.Generator) -> Pixels:
    """As `augment`, by given numbers.

    Args:
        draw: COUNT numbers from -1 to 1, whose PLACES say which transformation each one is for.
        random: gives the noise of what is erased.
    """
    numbers = {name: draw[place] for name, place in PLACES.items()}
    pixels = _move(pixels, magnitude, numbers)
    if magnitude.randaugment:
        pixels = randaugment(pixels, magnitude.randaugment_ops, magnitude.randaugment, numbers["randaugment"])
    pixels = _degrade(_recolour(pixels, magnitude, numbers), magnitude, numbers)
    if magnitude.erasing and numbers["erasing"][0] < 0:
        erase(pixels, magnitude.erasing, numbers["erasing"][1:], random)
    return pixels


def augment_images(
    images: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    magnitude: Magnitudes,
    seed: int,
    epoch: int,
    repeats: npt.NDArray[np.int64] | None = None,
) -> None:
    """Changes images in place, each by random numbers that follow from the seed, the epoch (or view) and its number.

    Args:
        images: uint8 (n, height, width, 3) RGB.
        rows: int64 (n,), a number for each image: its row in the pack, or one that follows from its image_id.
        repeats: int64 (n,), how often the epoch has shown each image before, so that it is changed in another way
            each time; `None`: 0 for all.
    """
    if not magnitude.any:
        return
    repeats = np.zeros_like(rows) if repeats is None else repeats
    for row, repeat, image in zip(rows.tolist(), repeats.tolist(), images, strict=True):
        numbers = [seed, epoch, row, repeat] if repeat else [seed, epoch, row]
        image[:] = augment(image, magnitude, np.random.default_rng(numbers))


def _move(pixels: Pixels, magnitude: Magnitudes, draw: dict[str, Draw]) -> Pixels:
    """Crop, then flips, then rotation and zoom, then translation, in one interpolation."""
    height, width = pixels.shape[:2]
    left_right = bool(magnitude.flip and draw["flip"][0] < 0)
    up_down = bool(magnitude.vertical_flip and draw["vertical_flip"][0] < 0)
    if not (magnitude.rotation or magnitude.zoom or magnitude.translation or magnitude.crop):
        return pixels[:: -1 if up_down else 1, :: -1 if left_right else 1].copy()
    centre = ((width - 1) / 2, (height - 1) / 2)
    angle, scale = 360 * magnitude.rotation * draw["rotation"][0], 1 + magnitude.zoom * draw["zoom"][0]
    matrix = cv2.getRotationMatrix2D(centre, angle, scale)
    across, down = draw["translation"]
    matrix[:, 2] += magnitude.translation * across * width, magnitude.translation * down * height
    if left_right or up_down:
        matrix = after(matrix, mirroring(height, width, left_right, up_down))
    if magnitude.crop:
        share = 1 - magnitude.crop * (draw["crop"][0] + 1) / 2
        matrix = after(matrix, cropping(height, width, rectangle(max(share, 1e-3), WIDEST_CROP, draw["crop"][1:])))
    return warp(pixels, matrix)


def _recolour(pixels: Pixels, magnitude: Magnitudes, draw: dict[str, Draw]) -> Pixels:
    """Hue, then contrast around the image's mean, then brightness, then no colour at all."""
    if magnitude.hue:
        hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
        turn = round(128 * magnitude.hue * draw["hue"][0])  # a full turn is 256: it wraps around
        hsv[..., 0] += np.uint8(turn % 256)
        pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    if magnitude.contrast or magnitude.brightness:
        mean = pixels.mean()
        contrasted = (np.arange(256) - mean) * (1 + magnitude.contrast * draw["contrast"][0]) + mean
        levels = contrasted + 255 * magnitude.brightness * draw["brightness"][0]
        pixels = cv2.LUT(pixels, np.clip(np.rint(levels), 0, 255).astype(np.uint8))
    if (draw["grayscale"][0] + 1) / 2 < magnitude.grayscale:
        pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return pixels


def _degrade(pixels: Pixels, magnitude: Magnitudes, draw: dict[str, Draw]) -> Pixels:
    """Blur, then what a JPEG of low quality leaves."""
    deviation = magnitude.blur * (draw["blur"][0] + 1) / 2 * min(pixels.shape[:2]) / 20
    if deviation > 0:
        pixels = cv2.GaussianBlur(pixels, (0, 0), deviation, borderType=cv2.BORDER_REFLECT)
    quality = round(100 * (1 - magnitude.jpeg * (draw["jpeg"][0] + 1) / 2))
    if quality < 100:
        # The order of the channels is that of OpenCV, BGR, so that brightness and colour are kept apart as in a photo.
        options = [cv2.IMWRITE_JPEG_QUALITY, max(quality, 1)]
        encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1]
        pixels = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return pixels
