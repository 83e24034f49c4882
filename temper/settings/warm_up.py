"""The settings of `warm_up`: the first phase, the head alone."""

from typing import Literal

from pydantic import Field, model_validator

from temper.settings.base import Count, Fraction, Rate, Section, Seed, StageSettings, Width
from temper.settings.training import (
    Adam,
    Constant,
    EarlyStopping,
    Optimizer,
    Schedule,
    Select,
    refuse_steps_beyond_the_end,
)


class Head(Section):
    """What is put on the backbone: dense layers, then one output a class."""

    units: list[Width] = Field([], description="the widths of the dense layers before the output")
    activation: Literal["relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "tanh", "sigmoid"] = Field(
        "relu", description="of these layers"
    )
    batch_norm: bool = Field(False, description="BatchNorm in each of these layers")
    dropout: Fraction = Field(0.2, description="the share of the features left out at random in each training step")


class WarmUp(Section):
    """The first phase: the head alone, on the embeddings of the frozen backbone."""

    head: Head = Field(Head(), description="what is put on the backbone")
    epochs: Count = Field(30, description="the most epochs that are trained")
    lr: Rate = Field(1e-3, description="the learning rate that the phase starts with")
    optimizer: Optimizer = Field(Adam(), description="the optimizer, and its own settings")
    schedule: Schedule = Field(Constant(), description="how the rate changes")
    early_stopping: EarlyStopping = Field(EarlyStopping(), description="when the phase ends early")
    select: Select = Field("val_loss", description="which epoch is kept: the best by this; if equal, the other decides")

    @model_validator(mode="after")
    def _schedule_ends_in_time(self) -> "WarmUp":
        refuse_steps_beyond_the_end(self.schedule, self.epochs)
        return self


class Settings(StageSettings):
    """What `warm_up` reads."""

    seed: Seed
    batch_size: Width = Field(description="images in a training step, of both phases")
    warm_up: WarmUp = Field(description="the first phase: a new head on the frozen backbone")
