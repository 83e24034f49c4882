"""The settings of `evaluate`: how the models are measured."""

from typing import Annotated, Literal

from pydantic import Field

from temper.settings.base import Section, StageSettings


class Evaluate(Section):
    """How the models are measured, and what is written of single images."""

    test_time_augmentation: Literal["none", "flip"] | Annotated[int, Field(ge=2, le=6)] = Field(
        "none",
        description="views of an image whose probabilities are averaged, for all that is said of the fine-tuned model: "
        "none (the image alone), flip (with its mirror image), or so many: the image, and crops of 7/8 of its centre "
        "and corners",
    )


class Settings(StageSettings):
    """What `evaluate` reads."""

    evaluate: Evaluate = Field(description="how the models are measured, and what is written of single images")
