"""The settings of augmentation, for the stages that augment images and for `gallery`, which draws examples."""

from typing import Annotated

from pydantic import Field

from temper.settings.base import Magnitude, Section


class RandAugment(Section):
    """RandAugment (Cubuk et al., arXiv:1909.13719): operations drawn for each image, all at one magnitude."""

    ops: Annotated[int, Field(ge=1, le=10)] = Field(
        2, description="how many operations are applied to an image in turn, each drawn from fourteen"
    )
    magnitude: Magnitude = Field(
        0.3, description="the magnitude of each operation; 0.3 is 9 of 30 in other libraries; 0: off"
    )


class Augmentation(Section):
    """The magnitude of each transformation; the first seven have the meaning that Keras's random layers give them."""

    flip: Magnitude | None = Field(
        None, description="above 0: half of the images, drawn at random, are mirrored left to right; null: `aug`"
    )
    rotation: Magnitude | None = Field(
        None, description="rotates by up to this fraction of a full turn, either way; null: `aug`"
    )
    zoom: Magnitude | None = Field(
        None, description="makes the content larger or smaller by up to this fraction; null: `aug`"
    )
    translation: Magnitude | None = Field(
        None, description="shifts by up to this fraction of the height and width; null: `aug`"
    )
    brightness: Magnitude | None = Field(None, description="adds or subtracts up to this fraction of 255; null: `aug`")
    contrast: Magnitude | None = Field(
        None, description="raises or lowers the contrast by up to this fraction; null: `aug`"
    )
    hue: Magnitude | None = Field(
        None, description="shifts the hue by up to half this fraction of the colour circle, either way; null: `aug`"
    )
    # These do not follow `aug`: each is wrong for some kind of photos, or takes much longer.
    vertical_flip: Magnitude = Field(
        0.0,
        description="above 0: half of the images, drawn at random, are mirrored top to bottom, for photos that have no "
        "top and bottom",
    )
    crop: Magnitude = Field(
        0.0,
        description="cuts away up to this share of the area and enlarges the rest; training on ImageNet usually has "
        "0.92",
    )
    grayscale: Magnitude = Field(0.0, description="the share of the images that lose their colour")
    blur: Magnitude = Field(
        0.0,
        description="Gaussian blur, with a standard deviation of up to this times a twentieth of the shorter side",
    )
    jpeg: Magnitude = Field(
        0.0, description="adds the artefacts of a JPEG with a quality between 100 * (1 - this) and 100"
    )
    erasing: Magnitude = Field(
        0.0,
        description="in half of the images, fills a rectangle of up to this share of the area with noise (Zhong et "
        "al., arXiv:1708.04896, who use 0.4)",
    )
    randaugment: RandAugment | None = Field(None, description="RandAugment, in addition to all of these; null: off")
