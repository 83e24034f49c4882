"""The only code that turns a photo's bytes into a model's input, for training, prediction and serving alike."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from temper import photos
from temper.headers import Dimensions
from temper.photos import Box, Pixels

Fit = Literal["stretch", "crop", "pad"]


@dataclass(frozen=True)
class Preparation:
    """How a photo becomes a model's input.

    Attributes:
        height: the height of the input in pixels.
        width: the width of the input in pixels.
        fit: what happens to a photo of other proportions: "stretch" changes its proportions, "crop" cuts the longer
            sides off around the centre, "pad" adds black bars.
        margin: the fraction of its width and height by which a box is widened on each side; 0 or more.
    """

    height: int
    width: int
    fit: Fit
    margin: float

    def __post_init__(self) -> None:
        if self.fit not in get_args(Fit):  # a card may have been written by hand
            raise ValueError(f"expected fit to be one of {', '.join(get_args(Fit))}, received {self.fit!r}")


def prepare(data: bytes, preparation: Preparation, box: Box | None = None) -> Pixels:
    """Turns an encoded photo into a model's input; the same arguments always give the same pixels.

    A large JPEG is decoded at a reduced size, in which the used part is still at least twice as high and wide as the
    input.

    Args:
        box: the part of the photo to use, to which the margin is added; `None`: the whole photo.

    Returns:
        uint8 (height, width, 3), RGB, 0-255.

    Raises:
        BadPhoto: the bytes are not a usable image.
    """
    wanted = preparation.height, preparation.width
    if box is None:
        pixels, full = photos.decode_with_dimensions(data, wanted)
    else:
        pixels, full = _decode_part(data, wanted, box, preparation.margin)
    return photos.resize(pixels, *wanted, preparation.fit, full)


def crop(pixels: Pixels, box: Box, margin: float) -> Pixels:
    """The part of a photo within `box`, after the box is widened on each side by `margin`.

    Args:
        pixels: the photo at full size.
        margin: a fraction of the box's width and height.
    """
    top, bottom, left, right = _part((pixels.shape[0], pixels.shape[1]), box, margin)
    return pixels[top:bottom, left:right]


def _part(full: Dimensions, box: Box, margin: float) -> tuple[int, int, int, int]:
    """The rows and columns that `box` covers with its margin: top, bottom, left, right; bottom and right exclusive.

    They are clamped to the photo, which has the dimensions `full`. If the box lies outside the photo, they cover the
    whole photo.
    """
    x1, y1, x2, y2 = box
    beside, above = (x2 - x1) * margin, (y2 - y1) * margin
    top, bottom = max(0, math.floor(y1 - above)), min(full[0], math.ceil(y2 + above))
    left, right = max(0, math.floor(x1 - beside)), min(full[1], math.ceil(x2 + beside))
    if left >= right or top >= bottom:
        return 0, full[0], 0, full[1]
    return top, bottom, left, right


def _decode_part(data: bytes, wanted: Dimensions, box: Box, margin: float) -> tuple[Pixels, Dimensions]:
    """Decodes the part of a photo within `box` and its margin; returns it with its height and width at full size.

    If the part at full size is at least twice as high and wide as `wanted`, so are the returned pixels.
    """
    full = photos.dimensions(data)
    if full is None:
        pixels = crop(photos.decode(data), box, margin)
        return pixels, (pixels.shape[0], pixels.shape[1])
    top, bottom, left, right = _part(full, box, margin)
    # For the part to be large enough, the whole photo must exceed `wanted` in the proportion of the photo to the part.
    least = math.ceil(wanted[0] * full[0] / (bottom - top)), math.ceil(wanted[1] * full[1] / (right - left))
    pixels, full = photos.decode_with_dimensions(data, least)
    top, bottom, left, right = _part(full, box, margin)
    down, across = pixels.shape[0] / full[0], pixels.shape[1] / full[1]  # 1 where nothing was reduced
    part = pixels[round(top * down) : round(bottom * down), round(left * across) : round(right * across)]
    return part, (bottom - top, right - left)
