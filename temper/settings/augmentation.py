"""The settings of augmentation, for the stages that augment and the one that draws it."""

from typing import Annotated

from pydantic import Field

from temper.settings.base import Magnitude, Section


class RandAugment(Section):
    """RandAugment (Cubuk et al., arXiv:1909.13719): operations drawn for each image, all at one magnitude."""

    ops: Annotated[int, Field(ge=1, le=10)] = Field(2, description="operations after one another, of fourteen")
    magnitude: Magnitude = Field(0.3, description="of each; 0.3 is 9 of 30 in other libraries; 0: off")


class Augmentation(Section):
    """The magnitude of each transformation: the first seven as Keras's random layers count them."""

    flip: Magnitude | None = Field(
        None, description="above 0: half of the images, drawn at random, are mirrored; null: `aug`"
    )
    rotation: Magnitude | None = Field(None, description="up to this part of a full turn; null: `aug`")
    zoom: Magnitude | None = Field(None, description="up to this fraction larger or smaller; null: `aug`")
    translation: Magnitude | None = Field(None, description="up to this fraction of the sides; null: `aug`")
    brightness: Magnitude | None = Field(None, description="up to this fraction of 255; null: `aug`")
    contrast: Magnitude | None = Field(None, description="up to this fraction more or less; null: `aug`")
    hue: Magnitude | None = Field(None, description="up to half this part of the colour circle; null: `aug`")
    # These do not follow `aug`: each is wrong for some kind of photos, or takes much longer.
    vertical_flip: Magnitude = Field(
        0.0, description="above 0: half of the images are mirrored top to bottom, for photos without an up and down"
    )
    crop: Magnitude = Field(
        0.0, description="up to this share of the area is cut away and the rest enlarged; ImageNet's training has 0.92"
    )
    grayscale: Magnitude = Field(0.0, description="this share of the images loses its colour")
    blur: Magnitude = Field(
        0.0, description="Gaussian, with a standard deviation of up to a twentieth of this part of the shorter side"
    )
    jpeg: Magnitude = Field(0.0, description="the artefacts of JPEGs of a quality between 100 * (1 - this) and 100")
    erasing: Magnitude = Field(
        0.0,
        description="in half of the images, noise over a rectangle of up to this share of the area (Zhong et al., "
        "arXiv:1708.04896, who take 0.4)",
    )
    randaugment: RandAugment | None = Field(None, description="a policy beside all of these; null: off")
