"""Geometric transformations: flips, crop, rotation, zoom, translation and shear, combined into one interpolation.

Space that comes into view from outside the image shows its mirrored edge.
"""

import math

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # (height, width, 3), RGB
Matrix = npt.NDArray[np.float64]  # (2, 3), affine: maps pixel coordinates of the image to those of the result


def rectangle(share: float, widest: float, draw: npt.NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Top, left, height and width of a rectangle inside the image, as fractions of the image's sides.

    Its height-to-width ratio is the image's times a factor from 1 / widest to widest. The factor is uniform on a
    logarithmic scale and limited to rectangles that fit into the image, so no second draw is ever needed.

    Args:
        share: the rectangle's share of the image's area, above 0 and at most 1.
        widest: the largest factor, above 1.
        draw: three numbers from -1 to 1: for the factor, the vertical and the horizontal place.
    """
    ratio = math.exp(draw[0] * min(math.log(widest), -math.log(share)))
    height, width = min(1.0, math.sqrt(share * ratio)), min(1.0, math.sqrt(share / ratio))
    return (draw[1] + 1) / 2 * (1 - height), (draw[2] + 1) / 2 * (1 - width), height, width


def cropping(height: int, width: int, part: tuple[float, float, float, float]) -> Matrix:
    """The matrix that enlarges a part of an image to the whole image.

    Args:
        part: top, left, height and width, as fractions of the image's sides, as `rectangle` returns them.
    """
    top, left, part_height, part_width = part
    across, down = 1 / part_width, 1 / part_height
    right = across * (0.5 - left * width) - 0.5  # pixel i covers i to i + 1
    return np.array([[across, 0, right], [0, down, down * (0.5 - top * height) - 0.5]])


def mirroring(height: int, width: int, left_right: bool, up_down: bool) -> Matrix:
    """The matrix that mirrors an image in either direction, or in both."""
    across = [-1, 0, width - 1] if left_right else [1, 0, 0]
    down = [0, -1, height - 1] if up_down else [0, 1, 0]
    return np.array([across, down], float)


def after(second: Matrix, first: Matrix) -> Matrix:
    """The matrix that applies `first`, then `second`."""
    both: Matrix = second @ np.vstack([first, [0, 0, 1]])
    return both


def around_centre(height: int, width: int, linear: npt.NDArray[np.float64]) -> Matrix:
    """The matrix that applies a (2, 2) matrix, such as a rotation or a shear, around the centre of an image."""
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.column_stack([linear, centre - linear @ centre])


def warp(pixels: Pixels, matrix: Matrix) -> Pixels:
    """A copy of an image transformed by a matrix, with bilinear interpolation, of the same size."""
    height, width = pixels.shape[:2]
    moved: Pixels = cv2.warpAffine(
        pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return moved
