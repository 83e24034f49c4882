"""The settings of `embed`: which views of the training images the frozen backbone sees."""

from pydantic import Field

from temper.settings.augmentation import Augmentation
from temper.settings.base import Count, Magnitude, Section, Seed, StageSettings


class Embed(Section):
    """Which views of each training image are embedded."""

    views: Count = Field(
        1, description="views of each training image: 1 is the plain image alone, each further one is augmented"
    )
    aug: Magnitude = Field(0.1, description="how strongly the further views are augmented, 0 to 1")
    augmentation: Augmentation = Field(Augmentation(), description="the magnitude of single transformations")


class Settings(StageSettings):
    """What `embed` reads."""

    seed: Seed
    embed: Embed = Field(description="the views of the images on which the frozen backbone runs, once")
