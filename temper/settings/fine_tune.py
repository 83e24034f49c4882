"""The settings of `fine_tune`: the second phase, the head and the opened part of the backbone."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from temper.settings.base import Count, FromText, Magnitude, Rate, Section, Seed, StageSettings, Text, Width
from temper.settings.mixing import MixedAugmentation
from temper.settings.training import (
    Adam,
    Average,
    Cosine,
    CrossEntropy,
    EarlyStopping,
    Loss,
    NoAverage,
    Optimizer,
    Schedule,
    Select,
    refuse_steps_beyond_the_end,
)


def _share(value: Any) -> Any:
    """A number as a share, even if YAML took it for text; names of layers unchanged."""
    if isinstance(value, str | int) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            return value
    return value


# How often an epoch shows the images of each class.
Sampling = Literal["natural", "balanced", "sqrt"]


class FineTune(Section):
    """The second phase, at the top-level lr and with the top-level aug."""

    unfreeze_from: Annotated[Text | Annotated[float, Field(gt=0, le=1)], BeforeValidator(_share)] = Field(
        "all", description="a layer or block of the backbone, a share of its layers such as 0.3, all, or none"
    )
    lr_decay: Annotated[float, Field(gt=0, le=1), FromText] = Field(
        1.0, description="each block of the backbone trains at this times the rate of what is above it; 1: all at lr"
    )
    epochs: Count = Field(8, description="the most epochs that are trained")
    optimizer: Optimizer = Field(Adam(), description="the optimizer, and its own settings")
    accumulate: Count = Field(1, description="batches whose gradients are averaged for one step of the optimizer")
    schedule: Schedule = Field(Cosine(), description="how the rate changes")
    loss: Loss = Field(CrossEntropy(), description="what training lowers; validation is always by cross-entropy")
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: images of rare classes count more, in inverse proportion to their number"
    )
    average: Average = Field(NoAverage(), description="which weights are validated and kept: the last or an average")
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32", description="what the backbone computes in; weights and the saved model are float32"
    )
    early_stopping: EarlyStopping = Field(EarlyStopping(), description="when the phase ends early")
    on_interrupt: Literal["resume", "keep"] = Field(
        "resume", description="on Ctrl-C: wait for the next run, or end with the best epoch so far and go on"
    )
    select: Select = Field("val_loss", description="which epoch is kept: the best by this; if equal, the other decides")
    augmentation: MixedAugmentation = Field(
        MixedAugmentation(), description="each transformation alone, and the mixing of images"
    )
    sampling: Sampling = Field(
        "natural",
        description="what an epoch shows: every image once; or as many images, each class equally often (balanced) or "
        "by the square root of its count (sqrt), of rare classes repeatedly",
    )

    @model_validator(mode="after")
    def _schedule_ends_in_time(self) -> "FineTune":
        refuse_steps_beyond_the_end(self.schedule, self.epochs)
        return self

    @model_validator(mode="after")
    def _classes_are_balanced_once(self) -> "FineTune":
        if self.class_weights == "balanced" and self.sampling != "natural":
            raise ValueError(
                f"class_weights: expected none with sampling: {self.sampling}, which balances the classes already, "
                "received balanced; remove one of the two"
            )
        return self

    @model_validator(mode="after")
    def _decay_has_blocks(self) -> "FineTune":
        if self.lr_decay < 1 and self.unfreeze_from == "none":
            raise ValueError("lr_decay: expected 1 where unfreeze_from is none, for no block trains; remove it")
        return self


class Settings(StageSettings):
    """What `fine_tune` reads."""

    seed: Seed
    batch_size: Width
    lr: Rate = Field(description="the learning rate that the fine-tune starts with")
    aug: Magnitude = Field(
        description="how strongly the fine-tune augments: one magnitude for all transformations, 0 to 1"
    )
    fine_tune: FineTune = Field(description="the second phase: head and backbone, at the top-level lr and aug")

    @model_validator(mode="after")
    def _mixing_has_partners(self) -> "Settings":
        for name in ("mixup", "cutmix"):
            if self.batch_size == 1 and getattr(self.fine_tune.augmentation, name):
                raise ValueError(
                    f"fine_tune.augmentation.{name} mixes the images of a batch: expected a batch_size of at least 2, "
                    "received 1"
                )
        return self
