"""The settings of `evaluate`: how the models are measured."""

from typing import Annotated, Literal

from pydantic import Field

from temper.settings.base import Section, StageSettings, Text


class Evaluate(Section):
    """How the models are measured, and what is explained about single images."""

    test_time_augmentation: Literal["none", "flip"] | Annotated[int, Field(ge=2, le=6)] = Field(
        "none",
        description="the views of an image whose probabilities are averaged, for every result of the fine-tuned model: "
        "none (the image alone), flip (the image and its mirror image), or a number of views: the image, then crops of "
        "7/8 of it at its centre and corners",
    )
    occlusion_maps: Annotated[int, Field(ge=0, le=1000)] = Field(
        12,
        description="for how many test images a map shows where the model looks, at the cost of 50 predictions each: "
        "up to half of them are the most confident mistakes, the others correct predictions of each class; 0: none",
    )
    filters: list[Text] = Field(
        [],
        description="layers of the backbone to draw, such as [Conv1, block_3_expand] of MobileNetV2: the kernels of a "
        "layer that sees colours, the strongest channels of a deeper layer on a few test images",
    )


class Settings(StageSettings):
    """What `evaluate` reads."""

    evaluate: Evaluate = Field(description="how the models are measured, and what is explained about single images")
