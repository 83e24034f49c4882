"""The settings of `evaluate`: how the models are measured."""

from typing import Annotated, Literal

from pydantic import Field

from temper.settings.base import Section, StageSettings, Text


class Evaluate(Section):
    """How the models are measured, and what is written of single images."""

    test_time_augmentation: Literal["none", "flip"] | Annotated[int, Field(ge=2, le=6)] = Field(
        "none",
        description="views of an image whose probabilities are averaged, for all that is said of the fine-tuned model: "
        "none (the image alone), flip (with its mirror image), or so many: the image, and crops of 7/8 of its centre "
        "and corners",
    )
    occlusion_maps: Annotated[int, Field(ge=0, le=1000)] = Field(
        12,
        description="of so many test images a map of where the model looks, which costs 50 predictions each: up to "
        "half of them the surest mistakes, the others right ones of each class; 0: none",
    )
    filters: list[Text] = Field(
        [],
        description="layers of the backbone to draw: of one that sees colours its kernels, of a deeper one its "
        "strongest channels on a few test images; such as [Conv1, block_3_expand] of MobileNetV2",
    )


class Settings(StageSettings):
    """What `evaluate` reads."""

    evaluate: Evaluate = Field(description="how the models are measured, and what is written of single images")
