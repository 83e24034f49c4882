"""The settings of the head: what is put on the backbone."""

from typing import Literal

from pydantic import Field

from temper.settings.base import Count, Fraction, Section


class Head(Section):
    """What is put on the backbone: dense layers, then one output a class."""

    units: list[Count] = Field([], description="the widths of the dense layers before the output")
    activation: Literal["relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "tanh", "sigmoid"] = Field(
        "relu", description="of these layers"
    )
    batch_norm: bool = Field(False, description="BatchNorm in each of these layers")
    dropout: Fraction = Field(0.2, description="the share of the features left out at random in each training step")
