"""Settings that the stages which train share: optimizers, schedules, early stopping, which epoch is kept.

An optimizer is a class here and nothing else: `temper/training/optimizers.py` builds it by the name of Keras's class.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from temper.settings.base import Count, Fraction, Magnitude, NotNegative, Rate, Section, Share, Whole


class Adam(Section):
    """Adam (Kingma and Ba, arXiv:1412.6980)."""

    keras_class: ClassVar[str] = "Adam"
    name: Literal["adam"] = "adam"


class AdamW(Section):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101)."""

    keras_class: ClassVar[str] = "AdamW"
    name: Literal["adamw"]
    weight_decay: NotNegative = Field(
        0.004, description="times the rate: the share of each weight that a step takes away"
    )


class Sgd(Section):
    """Stochastic gradient descent."""

    keras_class: ClassVar[str] = "SGD"
    name: Literal["sgd"]
    momentum: Fraction = Field(0.9, description="how much of the last step is added to the next")


Optimizer = Annotated[Adam | AdamW | Sgd, Field(discriminator="name")]


class Constant(Section):
    """The rate stays at lr."""

    name: Literal["constant"] = "constant"


class Piecewise(Section):
    """`epochs: [7, 8], factors: [0.5, 0.05]`: lr for 7 epochs, half of it to epoch 8, then a twentieth."""

    name: Literal["piecewise"]
    epochs: list[Count] = Field(description="the epochs at which the rate changes, rising")
    factors: list[Rate] = Field(description="what lr is multiplied by, from each of these epochs on")

    @model_validator(mode="after")
    def _as_many_factors_as_epochs(self) -> "Piecewise":
        if len(self.epochs) != len(self.factors) or self.epochs != sorted(set(self.epochs)):
            raise ValueError(f"expected rising epochs and a factor for each, received {self.epochs}, {self.factors}")
        return self


class Cosine(Section):
    """From lr down to lr * end along half a cosine (Loshchilov and Hutter, arXiv:1608.03983, without restarts)."""

    name: Literal["cosine"] = "cosine"
    end: Magnitude = Field(0.0, description="the last rate, as a fraction of lr")


class Plateau(Section):
    """lr times factor whenever the validation loss has not improved for `patience` epochs (as ReduceLROnPlateau)."""

    name: Literal["plateau"]
    factor: Share = Field(0.5, description="what the rate is multiplied by")
    patience: Count = Field(3, description="epochs without improvement before the rate falls")
    min_delta: NotNegative = Field(1e-4, description="a smaller gain in loss is no improvement")
    cooldown: Whole = Field(0, description="epochs after a fall that are not counted")
    min_lr: NotNegative = Field(0.0, description="the rate does not fall below this")


def refuse_steps_beyond_the_end(schedule: "Constant | Piecewise | Cosine | Plateau", epochs: int) -> None:
    """Raises a ValueError where a schedule changes the rate in an epoch that the phase does not have."""
    if isinstance(schedule, Piecewise) and schedule.epochs and schedule.epochs[-1] >= epochs:
        raise ValueError(
            f"schedule.epochs: expected epochs below {epochs}, the phase's own, received {schedule.epochs}"
        )


Schedule = Annotated[Constant | Piecewise | Cosine | Plateau, Field(discriminator="name")]


# The figure on validation by which epochs are compared; if it is equal, the other one decides.
Select = Literal["val_accuracy", "val_loss"]


class EarlyStopping(Section):
    """Ends a phase when the selected figure on validation has not improved by more than min_delta for some epochs."""

    patience: Count | None = Field(None, description="epochs without improvement before the phase ends; null: never")
    min_delta: NotNegative = Field(0.0, description="a smaller gain is no improvement")
