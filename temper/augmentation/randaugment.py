"""RandAugment (Cubuk et al., arXiv:1909.13719): applies a few operations, drawn from fourteen, all at one magnitude.

The ranges are those of the paper's code, as in torchvision. Space that comes into view shows the mirrored edge of the
image instead of grey.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from temper.augmentation.geometry import Pixels, around_centre, warp

MOST_OPERATIONS = 10
# The value of each operation at magnitude 1.
SHEAR = 0.3  # the shift of a row or column, as a fraction of its distance from the centre
TRANSLATION = 150 / 331  # as a fraction of the side
ROTATION = 30  # degrees
BLEND = 0.9  # how far the factors of colour, contrast, brightness and sharpness are from 1
BITS = 4  # how many of the 8 bits posterizing removes

Operation = Callable[[Pixels, float], Pixels]


def _identity(pixels: Pixels, _: float) -> Pixels:
    return pixels


def _looked_up(pixels: Pixels, levels: npt.NDArray[np.floating]) -> Pixels:
    """Replaces each level 0 to 255 by a table: (256,) for all channels, or (256, 3) with a column for each channel."""
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    changed: Pixels = cv2.LUT(pixels, table if table.ndim == 1 else table[None])
    return changed


def _blended(pixels: Pixels, other: Pixels, factor: float) -> Pixels:
    """Blends two images: factor 0 gives `other`, 1 gives `pixels`, above 1 extrapolates beyond `pixels`."""
    changed: Pixels = cv2.addWeighted(pixels, factor, other, 1 - factor, 0)
    return changed


def _autocontrast(pixels: Pixels, _: float) -> Pixels:
    """Stretches each channel so that its darkest level becomes 0 and its brightest 255."""
    limits = np.array([cv2.minMaxLoc(channel)[:2] for channel in cv2.split(pixels)])
    darkest, brightest = limits[:, 0], limits[:, 1]
    span = np.where(brightest > darkest, brightest - darkest, 255)
    levels = (np.arange(256)[:, None] - np.where(brightest > darkest, darkest, 0)) * 255 / span
    return _looked_up(pixels, levels)


def _equalize(pixels: Pixels, _: float) -> Pixels:
    """Equalizes the histogram of each channel."""
    equalized: Pixels = cv2.merge([cv2.equalizeHist(channel) for channel in cv2.split(pixels)])
    return equalized


def _solarize(pixels: Pixels, magnitude: float) -> Pixels:
    """Inverts all levels above a threshold: none at magnitude 0."""
    levels = np.arange(256.0)
    return _looked_up(pixels, np.where(levels > 255 * (1 - abs(magnitude)), 255 - levels, levels))


def _posterize(pixels: Pixels, magnitude: float) -> Pixels:
    """Keeps fewer bits per channel: 8 at magnitude 0, 4 at magnitude 1."""
    lost = round(BITS * abs(magnitude))
    return _looked_up(pixels, (np.arange(256) >> lost << lost).astype(float))


def _colour(pixels: Pixels, magnitude: float) -> Pixels:
    """Lowers or raises the saturation."""
    gray = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return _blended(pixels, gray, 1 + BLEND * magnitude)


def _contrast(pixels: Pixels, magnitude: float) -> Pixels:
    """Lowers or raises the contrast around the mean grey level."""
    mean = cv2.mean(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))[0]
    return _looked_up(pixels, (np.arange(256) - mean) * (1 + BLEND * magnitude) + mean)


def _brightness(pixels: Pixels, magnitude: float) -> Pixels:
    """Multiplies all levels by a factor."""
    return _looked_up(pixels, np.arange(256) * (1 + BLEND * magnitude))


def _sharpness(pixels: Pixels, magnitude: float) -> Pixels:
    """Blurs or sharpens."""
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
    return _blended(pixels, cv2.filter2D(pixels, -1, kernel, borderType=cv2.BORDER_REFLECT), 1 + BLEND * magnitude)


def _sheared(pixels: Pixels, across: float, down: float) -> Pixels:
    height, width = pixels.shape[:2]
    return warp(pixels, around_centre(height, width, np.array([[1, SHEAR * across], [SHEAR * down, 1]])))


def _translated(pixels: Pixels, across: float, down: float) -> Pixels:
    height, width = pixels.shape[:2]
    return warp(pixels, np.array([[1, 0, TRANSLATION * across * width], [0, 1, TRANSLATION * down * height]]))


def _rotated(pixels: Pixels, magnitude: float) -> Pixels:
    angle = math.radians(ROTATION * magnitude)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    height, width = pixels.shape[:2]
    return warp(pixels, around_centre(height, width, turn))


# Each takes an image and a magnitude from -1 to 1, whose sign is drawn at random. Some ignore the sign, or both.
OPERATIONS: dict[str, Operation] = {
    "identity": _identity,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "rotate": _rotated,
    "solarize": _solarize,
    "colour": _colour,
    "posterize": _posterize,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "shear x": lambda pixels, magnitude: _sheared(pixels, magnitude, 0),
    "shear y": lambda pixels, magnitude: _sheared(pixels, 0, magnitude),
    "translate x": lambda pixels, magnitude: _translated(pixels, magnitude, 0),
    "translate y": lambda pixels, magnitude: _translated(pixels, 0, magnitude),
}


def randaugment(pixels: Pixels, ops: int, magnitude: float, draw: npt.NDArray[np.float64]) -> Pixels:
    """An image after `ops` operations, each drawn from all fourteen: uint8 (height, width, 3) RGB.

    Args:
        ops: how many operations, at most MOST_OPERATIONS; the paper's N.
        magnitude: above 0, at most 1: M / 30 with torchvision's M, M / 10 with the paper's.
        draw: two numbers from -1 to 1 for each operation: which one, and its sign.
    """
    every = list(OPERATIONS.values())
    for which, sign in draw[: 2 * ops].reshape(ops, 2).tolist():
        operation = every[min(int((which + 1) / 2 * len(every)), len(every) - 1)]
        pixels = operation(pixels, math.copysign(magnitude, sign))
    return pixels
