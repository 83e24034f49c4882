"""The settings of `fine_tune`: the second phase, the head and the opened part of the backbone."""

from pydantic import Field

from temper.settings.base import Count, Magnitude, Rate, Section, Seed, StageSettings, Text
from temper.settings.training import Adam, Augmentation, Cosine, EarlyStopping, Optimizer, Schedule


class FineTune(Section):
    """The second phase, at the top-level lr and with the top-level aug."""

    unfreeze_from: Text = Field("all", description="a layer or block of the backbone, all, or none")
    epochs: Count = Field(8, description="at most")
    optimizer: Optimizer = Field(Adam(), description="and its own settings")
    schedule: Schedule = Field(Cosine(), description="how the rate changes from epoch to epoch")
    early_stopping: EarlyStopping = Field(EarlyStopping(), description="when the phase ends early")
    augmentation: Augmentation = Field(Augmentation(), description="each transformation alone")


class Settings(StageSettings):
    """What `fine_tune` reads."""

    seed: Seed
    batch_size: Count
    lr: Rate = Field(description="the learning rate that the fine-tune starts with")
    aug: Magnitude = Field(description="of the fine-tune: one magnitude for all transformations, 0 to 1")
    fine_tune: FineTune = Field(description="the second phase: head and backbone, at the top-level lr and aug")
