"""The settings of `pack`: how a photo becomes an array."""

from typing import Annotated, Literal

from pydantic import Field

from temper.settings.base import FromText, ImageSize, Magnitude, Section, StageSettings, Whole


class MainBox(Section):
    """Which of the detected objects is the main one. Applied when boxes are read, so a change runs no detector."""

    classes: list[str] | None = Field(None, description="names of the detector's classes; null: any object")
    score: Magnitude = Field(
        0.3, description="boxes with a lower score do not count; a detector stores none below its `floor`"
    )
    overlap: Magnitude = Field(
        0.45, description="if the intersection over union of two boxes is larger, the weaker is dropped, of any class"
    )
    pick: Literal["largest", "most_central", "highest_score"] = Field(
        "largest", description="which one is the main one"
    )
    min_box: Whole = Field(32, description="pixels of its shorter side; if it is smaller, the whole image is used")


class Pack(Section):
    """How a photo becomes an array of `image_size`."""

    fit: Literal["stretch", "crop", "pad"] = Field("stretch", description="how other proportions are brought to size")
    margin: Annotated[float, Field(ge=0, le=2), FromText] = Field(
        0.1, description="added on each side of a detected box, in fractions of it"
    )
    box: MainBox = Field(MainBox(), description="which detected object is the main one")


class Settings(StageSettings):
    """What `pack` reads."""

    image_size: ImageSize = Field(description="of the packed images, in pixels: N or [height, width]")
    pack: Pack = Field(description="how a photo becomes an array of image_size")
