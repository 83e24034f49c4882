"""Augmentation: changes an image at random, always in the same way for the same seed, epoch and image.

It runs on the CPU with plain OpenCV; stages/fine_tune/on_device.py makes the same changes inside a training step. Each
image has its own random numbers. Keras's augmentation layers have a hidden random state instead, which would have to be
saved for a killed run to resume with the same bits. It also works with any Keras backend.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from temper.augmentation.erasing import erase
from temper.augmentation.geometry import Matrix, Pixels, after, cropping, mirroring, rectangle, warp
from temper.augmentation.randaugment import MOST_OPERATIONS, randaugment
from temper.settings.augmentation import Augmentation

Draw = npt.NDArray[np.float64]  # numbers from -1 to 1
# Which of an image's random numbers belong to which transformation. Each has its own, so that setting one magnitude to
# 0 does not change what the others do. Add a new transformation at the end: then results of older settings keep their
# bits.
PLACES = {
    "flip": slice(0, 1),
    "rotation": slice(1, 2),
    "zoom": slice(2, 3),
    "translation": slice(3, 5),
    "brightness": slice(5, 6),
    "contrast": slice(6, 7),
    "hue": slice(7, 8),
    "vertical_flip": slice(8, 9),
    "crop": slice(9, 13),  # share of the area, proportions, vertical and horizontal place
    "grayscale": slice(13, 14),
    "blur": slice(14, 15),
    "jpeg": slice(15, 16),
    "erasing": slice(16, 21),  # whether to erase, share of the area, proportions, vertical and horizontal place
    "randaugment": slice(21, 21 + 2 * MOST_OPERATIONS),
}
COUNT = 21 + 2 * MOST_OPERATIONS
WIDEST_CROP = 4 / 3  # the largest change of proportions, as in Inception's crops (Szegedy et al., arXiv:1409.4842)


@dataclass(frozen=True)
class Magnitudes:
    """The strength of each transformation, 0 (off) to 1; the first seven have the meaning of Keras's layers.

    Attributes:
        flip: above 0, an image is mirrored left to right with probability 1/2.
        rotation: rotates by up to this fraction of a full turn, either way.
        zoom: makes the content larger or smaller by up to this fraction.
        translation: shifts by up to this fraction of the height and width.
        brightness: adds or subtracts up to this fraction of 255.
        contrast: raises or lowers each level's difference from the image's mean by up to this fraction.
        hue: shifts the hue by up to half this fraction of the colour circle, either way.
        vertical_flip: above 0, an image is mirrored top to bottom with probability 1/2.
        crop: cuts away up to this share of the area; the rest, from any place, is enlarged to the full size.
        grayscale: the probability that an image loses its colour.
        blur: Gaussian blur with a standard deviation of up to this times a twentieth of the shorter side.
        jpeg: adds the artefacts of a JPEG whose quality is as low as 100 * (1 - jpeg).
        erasing: with probability 1/2, fills a rectangle of up to this share of the area with noise.
        randaugment: the magnitude of RandAugment's operations.
        randaugment_ops: how many operations of RandAugment are applied in turn.
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
        """Whether any transformation is on."""
        return any(getattr(self, name) for name in PLACES)

    @property
    def moves(self) -> bool:
        """Whether any transformation is on that interpolates between pixels."""
        return bool(self.rotation or self.zoom or self.translation or self.crop)


def magnitudes(aug: float, alone: Augmentation) -> Magnitudes:
    """The magnitudes that the settings mean: `aug` for every transformation whose own setting is null."""
    chosen = {name: getattr(alone, name) for name in PLACES if name != "randaugment"}
    policy = alone.randaugment
    return Magnitudes(
        **{name: aug if value is None else value for name, value in chosen.items()},
        randaugment=policy.magnitude if policy else 0,
        randaugment_ops=policy.ops if policy else 0,
    )


def augment(pixels: Pixels, magnitude: Magnitudes, random: np.random.Generator) -> Pixels:
    """An augmented copy of an image, uint8 (height, width, 3) RGB; space that moves into view shows the mirrored edge.

    Args:
        random: each transformation always uses the same of its numbers, whichever others are on.
    """
    return augment_by(pixels, magnitude, random.uniform(-1, 1, COUNT), random)


def augment_by(pixels: Pixels, magnitude: Magnitudes, draw: Draw, random: np.random.Generator) -> Pixels:
    """The same as `augment`, with given random numbers.

    Args:
        draw: COUNT numbers from -1 to 1; PLACES says which of them belong to which transformation.
        random: the source of the noise in erased rectangles.
    """
    numbers = named(draw)
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
    """Augments images in place; the random numbers of each follow from the seed, the epoch and the image's number.

    Args:
        images: uint8 (n, height, width, 3) RGB.
        rows: int64 (n,), a number for each image: its row in the pack, or one derived from its image_id.
        epoch: the number of the epoch, or of the view.
        repeats: int64 (n,), how often this epoch has shown each image before, so that it is changed in another way
            each time; `None`: 0 for all.
    """
    if not magnitude.any:
        return
    repeats = np.zeros_like(rows) if repeats is None else repeats
    for row, repeat, image in zip(rows.tolist(), repeats.tolist(), images, strict=True):
        image[:] = augment(image, magnitude, generator(seed, epoch, row, repeat))


def generator(seed: int, epoch: int, row: int, repeat: int) -> np.random.Generator:
    """The random numbers of one image in one epoch; `augment_images` explains the arguments."""
    return np.random.default_rng([seed, epoch, row, repeat] if repeat else [seed, epoch, row])


def named(draw: Draw) -> dict[str, Draw]:
    """COUNT random numbers by the transformations that they belong to."""
    return {name: draw[place] for name, place in PLACES.items()}


def _move(pixels: Pixels, magnitude: Magnitudes, draw: dict[str, Draw]) -> Pixels:
    """Crops, then flips, then rotates and zooms, then translates, all in a single interpolation."""
    if not magnitude.moves:
        left_right, up_down = mirrored(magnitude, draw)
        return pixels[:: -1 if up_down else 1, :: -1 if left_right else 1].copy()
    height, width = pixels.shape[:2]
    return warp(pixels, movement(height, width, magnitude, draw))


def mirrored(magnitude: Magnitudes, draw: dict[str, Draw]) -> tuple[bool, bool]:
    """Whether an image is mirrored left to right, and top to bottom."""
    return (
        bool(magnitude.flip and draw["flip"][0] < 0),
        bool(magnitude.vertical_flip and draw["vertical_flip"][0] < 0),
    )


def movement(height: int, width: int, magnitude: Magnitudes, draw: dict[str, Draw]) -> Matrix:
    """The matrix of all geometric transformations of an image: crop, flips, rotation and zoom, translation."""
    left_right, up_down = mirrored(magnitude, draw)
    centre = ((width - 1) / 2, (height - 1) / 2)
    angle, scale = 360 * magnitude.rotation * draw["rotation"][0], 1 + magnitude.zoom * draw["zoom"][0]
    matrix: Matrix = cv2.getRotationMatrix2D(centre, angle, scale)
    across, down = draw["translation"]
    matrix[:, 2] += magnitude.translation * across * width, magnitude.translation * down * height
    if left_right or up_down:
        matrix = after(matrix, mirroring(height, width, left_right, up_down))
    if magnitude.crop:
        share = 1 - magnitude.crop * (draw["crop"][0] + 1) / 2
        matrix = after(matrix, cropping(height, width, rectangle(max(share, 1e-3), WIDEST_CROP, draw["crop"][1:])))
    return matrix


def _recolour(pixels: Pixels, magnitude: Magnitudes, draw: dict[str, Draw]) -> Pixels:
    """Changes hue, then contrast around the image's mean, then brightness, then may turn the image to grayscale."""
    if magnitude.hue:
        hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
        hsv[..., 0] += np.uint8(hue_turn(magnitude, draw) % 256)  # it wraps around
        pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    if magnitude.contrast or magnitude.brightness:
        mean = pixels.mean()
        contrasted = (np.arange(256) - mean) * (1 + magnitude.contrast * draw["contrast"][0]) + mean
        levels = contrasted + 255 * magnitude.brightness * draw["brightness"][0]
        pixels = cv2.LUT(pixels, np.clip(np.rint(levels), 0, 255).astype(np.uint8))
    if loses_colour(magnitude, draw):
        pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return pixels


def hue_turn(magnitude: Magnitudes, draw: dict[str, Draw]) -> int:
    """By how much the hue of an image is shifted, where a full turn of the colour circle is 256."""
    return round(128 * magnitude.hue * float(draw["hue"][0]))


def loses_colour(magnitude: Magnitudes, draw: dict[str, Draw]) -> bool:
    """Whether an image is turned to grayscale."""
    return bool((draw["grayscale"][0] + 1) / 2 < magnitude.grayscale)


def _degrade(pixels: Pixels, magnitude: Magnitudes, draw: dict[str, Draw]) -> Pixels:
    """Blurs, then adds the artefacts of a low-quality JPEG."""
    deviation = magnitude.blur * (draw["blur"][0] + 1) / 2 * min(pixels.shape[:2]) / 20
    if deviation > 0:
        pixels = cv2.GaussianBlur(pixels, (0, 0), deviation, borderType=cv2.BORDER_REFLECT)
    quality = round(100 * (1 - magnitude.jpeg * (draw["jpeg"][0] + 1) / 2))
    if quality < 100:
        # OpenCV's encoder expects BGR: in RGB order it would separate brightness and colour unlike in a real photo.
        options = [cv2.IMWRITE_JPEG_QUALITY, max(quality, 1)]
        encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1]
        pixels = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return pixels
