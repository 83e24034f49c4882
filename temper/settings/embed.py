"""The settings of `embed`: which views of the training images the frozen backbone sees."""

from pydantic import Field

from temper.settings.augmentation import Augmentation
from temper.settings.base import Count, Magnitude, Section, Seed, StageSettings


class Embed(Section):
    """The embeddings of each training image."""

    views: Count = Field(1, description="1: the plain image alone; more: augmented views of it as well")
    aug: Magnitude = Field(0.1, description="how strongly the further views are augmented, 0 to 1")
    augmentation: Augmentation = Field(Augmentation(), description="each transformation alone")


class Settings(StageSettings):
    """What `embed` reads."""

    seed: Seed
    embed: Embed = Field(description="what the frozen backbone is shown, once")
