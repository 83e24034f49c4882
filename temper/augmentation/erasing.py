"""Random erasing (Zhong et al., "Random Erasing Data Augmentation", arXiv:1708.04896)."""

import numpy as np
import numpy.typing as npt

from temper.augmentation.geometry import Pixels, rectangle

LEAST = 0.02  # the smallest share of the area, unless the largest is smaller still; the paper's s_l
WIDEST = 1 / 0.3  # in a square image, the rectangle's sides differ by at most this factor; the paper's r_2


def erase(pixels: Pixels, largest: float, draw: npt.NDArray[np.float64], random: np.random.Generator) -> None:
    """Fills a rectangle of an image with noise, a random value for each pixel and channel, in place.

    Unlike in the paper, whose images are square, the rectangle's proportions are relative to the image's own.

    Args:
        largest: the largest share of the area, above 0 and at most 1.
        draw: four numbers from -1 to 1: for the share of the area, the proportions, the vertical and horizontal place.
        random: the source of the noise.
    """
    least = min(LEAST, largest)
    share = least + (largest - least) * (draw[0] + 1) / 2
    top, left, tall, wide = rectangle(share, WIDEST, draw[1:4])
    height, width = pixels.shape[:2]
    rows, columns = max(1, round(tall * height)), max(1, round(wide * width))
    first_row, first_column = min(round(top * height), height - rows), min(round(left * width), width - columns)
    noise = random.integers(0, 256, (rows, columns, 3), np.uint8)
    pixels[first_row : first_row + rows, first_column : first_column + columns] = noise
