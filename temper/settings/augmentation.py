"""The settings of augmentation, for the stages that augment and the one that draws it."""

from pydantic import Field

from temper.settings.base import Magnitude, Section


class Augmentation(Section):
    """The magnitude of each transformation, as Keras's random layers count them."""

    flip: Magnitude | None = Field(
        None, description="above 0: half of the images, drawn at random, are mirrored; null: `aug`"
    )
    rotation: Magnitude | None = Field(None, description="up to this part of a full turn; null: `aug`")
    zoom: Magnitude | None = Field(None, description="up to this fraction larger or smaller; null: `aug`")
    translation: Magnitude | None = Field(None, description="up to this fraction of the sides; null: `aug`")
    brightness: Magnitude | None = Field(None, description="up to this fraction of 255; null: `aug`")
    contrast: Magnitude | None = Field(None, description="up to this fraction more or less; null: `aug`")
    hue: Magnitude | None = Field(None, description="up to half this part of the colour circle; null: `aug`")
