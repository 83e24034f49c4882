"""The settings of `pack`: how a photo becomes an array."""

from typing import Annotated, Literal

from pydantic import Field

from temper.settings.base import FromText, ImageSize, Magnitude, Section, StageSettings, Whole


class MainBox(Section):
    """Which of the detected objects is the main one. Applied when boxes are read, so a change reruns no detector."""

    classes: list[str] | None = Field(
        None, description="the detector's classes that may be the main object, by name; null: any class"
    )
    score: Magnitude = Field(
        0.3, description="boxes with a lower score are ignored; a detector stores none below its `floor`"
    )
    overlap: Magnitude = Field(
        0.45,
        description="of two boxes whose intersection over union is larger than this, the one with the lower score is "
        "dropped, whatever their classes",
    )
    pick: Literal["largest", "most_central", "highest_score"] = Field(
        "largest", description="which of the remaining boxes is the main object"
    )
    min_box: Whole = Field(
        32, description="minimum length of the box's shorter side in pixels; if it is shorter, the whole image is used"
    )


class Pack(Section):
    """How a photo becomes an array of `image_size`."""

    fit: Literal["stretch", "crop", "pad"] = Field(
        "stretch",
        description="what happens to a photo of other proportions than image_size: stretch changes its proportions, "
        "crop cuts its longer sides around the centre, pad adds black bars",
    )
    margin: Annotated[float, Field(ge=0, le=2), FromText] = Field(
        0.1, description="added on each side of a detected box, as a fraction of the box's width and height"
    )
    box: MainBox = Field(MainBox(), description="which detected object is the main one")


class Settings(StageSettings):
    """What `pack` reads."""

    image_size: ImageSize = Field(description="the size of the packed images in pixels: N or [height, width]")
    pack: Pack = Field(description="how a photo becomes an array of image_size")
