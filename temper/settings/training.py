"""Settings that both training stages share: optimizers, schedules, losses, weight averages and early stopping.

To add an optimizer, add a class here: `temper/training/optimizers.py` finds Keras's class by `keras_class`.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from temper.settings.base import Count, Fraction, FromText, Magnitude, NotNegative, Rate, Section, Share, Whole

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), FromText]
# The descriptions of settings that several optimizers share; the settings have Keras's names.
BETA_1 = "the decay of the moving average of the gradients"
BETA_2 = "the decay of the moving average of the squared gradients"
EPSILON = "added to the denominator of each step, against division by zero; larger values give smaller steps"
MOMENTUM = "the share of the last step that is added to the next"
SMOOTHING = "the share of each target that is spread evenly over all classes (Szegedy et al., arXiv:1512.00567)"
WEIGHT_DECAY = "each step shrinks a weight by this times the learning rate; biases and norms are left out"


class Clipping(Section):
    """Gradient clipping, which every optimizer takes: at most one of these rules."""

    clipnorm: Positive | None = Field(
        None, description="scales a variable's gradient down to this norm if it is larger; null: no limit"
    )
    global_clipnorm: Positive | None = Field(
        None,
        description="scales all gradients down if their norm together is larger than this (Pascanu et al., "
        "arXiv:1211.5063); null: no limit",
    )
    clipvalue: Positive | None = Field(
        None, description="clips each value of a gradient to this absolute value; null: no limit"
    )

    @model_validator(mode="after")
    def _by_one_rule(self) -> "Clipping":
        chosen = [name for name in ("clipnorm", "global_clipnorm", "clipvalue") if getattr(self, name) is not None]
        if len(chosen) > 1:
            raise ValueError(f"expected at most one of clipnorm, global_clipnorm and clipvalue, received {chosen}")
        return self


class Adam(Clipping):
    """Adam (Kingma and Ba, arXiv:1412.6980)."""

    keras_class: ClassVar[str] = "Adam"
    name: Literal["adam"] = "adam"
    beta_1: Fraction = Field(0.9, description=BETA_1)
    beta_2: Fraction = Field(0.999, description=BETA_2)
    epsilon: Positive = Field(1e-7, description=EPSILON)


class AdamW(Clipping):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101)."""

    keras_class: ClassVar[str] = "Adam"
    name: Literal["adamw"]
    weight_decay: NotNegative = Field(0.004, description=WEIGHT_DECAY)
    beta_1: Fraction = Field(0.9, description=BETA_1)
    beta_2: Fraction = Field(0.999, description=BETA_2)
    epsilon: Positive = Field(1e-7, description=EPSILON)


class Sgd(Clipping):
    """Stochastic gradient descent."""

    keras_class: ClassVar[str] = "SGD"
    name: Literal["sgd"]
    momentum: Fraction = Field(0.9, description=MOMENTUM)
    nesterov: bool = Field(False, description="whether the momentum is Nesterov's")
    weight_decay: NotNegative = Field(0.0, description=WEIGHT_DECAY)

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "Sgd":
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected a momentum above 0 with it, received 0.0")
        return self


class RmsProp(Clipping):
    """RMSprop (Hinton's lecture 6e, 2012)."""

    keras_class: ClassVar[str] = "RMSprop"
    name: Literal["rmsprop"]
    rho: Fraction = Field(0.9, description="the decay of the moving average of the squared gradients")
    momentum: Fraction = Field(0.0, description=MOMENTUM)
    epsilon: Positive = Field(1e-7, description=EPSILON)
    weight_decay: NotNegative = Field(0.0, description=WEIGHT_DECAY)


class Lion(Clipping):
    """Lion (Chen et al., arXiv:2302.06675): every weight moves by the same amount, so use 1/3 to 1/10 of Adam's lr."""

    keras_class: ClassVar[str] = "Lion"
    name: Literal["lion"]
    beta_1: Annotated[float, Field(gt=0, lt=1), FromText] = Field(0.9, description=BETA_1)
    beta_2: Fraction = Field(0.99, description="the decay of the momentum, a moving average of the gradients")
    weight_decay: NotNegative = Field(0.0, description=WEIGHT_DECAY)


class Lamb(Clipping):
    """LAMB (You et al., arXiv:1904.00962): Adam with each variable's step scaled by its norm, for large batches."""

    keras_class: ClassVar[str] = "Lamb"
    name: Literal["lamb"]
    weight_decay: NotNegative = Field(0.0, description=WEIGHT_DECAY)
    beta_1: Fraction = Field(0.9, description=BETA_1)
    beta_2: Fraction = Field(0.999, description=BETA_2)
    epsilon: Positive = Field(1e-7, description=EPSILON)


Optimizer = Annotated[Adam | AdamW | Sgd | RmsProp | Lion | Lamb, Field(discriminator="name")]


class Warmed(Section):
    """What every schedule takes: how the learning rate begins."""

    warm_up: NotNegative = Field(
        0.0,
        description="the number of epochs, not necessarily whole, over which the learning rate rises linearly to that "
        "of the schedule; 0: it starts there",
    )


class Constant(Warmed):
    """The learning rate stays at lr."""

    name: Literal["constant"] = "constant"


class Piecewise(Warmed):
    """`epochs: [7, 8], factors: [0.5, 0.05]`: lr for 7 epochs, half of it for the eighth, then a twentieth of it."""

    name: Literal["piecewise"]
    epochs: list[Count] = Field(
        description="the numbers of finished epochs after which the learning rate changes, in rising order"
    )
    factors: list[Rate] = Field(description="for each of these epochs, what lr is multiplied by from then on")

    @model_validator(mode="after")
    def _as_many_factors_as_epochs(self) -> "Piecewise":
        if len(self.epochs) != len(self.factors) or self.epochs != sorted(set(self.epochs)):
            raise ValueError(f"expected rising epochs and a factor for each, received {self.epochs}, {self.factors}")
        return self


class Cosine(Warmed):
    """From lr down to lr * end along half a cosine (Loshchilov and Hutter, arXiv:1608.03983, without restarts)."""

    name: Literal["cosine"] = "cosine"
    end: Magnitude = Field(0.0, description="the last rate, as a fraction of lr")
    by: Literal["step", "epoch"] = Field(
        "step", description="whether the learning rate falls after each step or after each epoch"
    )


class Plateau(Warmed):
    """Multiplies lr by factor whenever val_loss has not improved for `patience` epochs (as ReduceLROnPlateau)."""

    name: Literal["plateau"]
    factor: Share = Field(0.5, description="what the learning rate is multiplied by at each reduction")
    patience: Count = Field(3, description="epochs without improvement before the learning rate is reduced")
    min_delta: NotNegative = Field(
        1e-4, description="only a fall of the loss by more than this counts as an improvement"
    )
    cooldown: Whole = Field(
        0,
        description="epochs after a reduction in which patience does not count; as in Keras, the last of them counts "
        "again, so 1 is the same as 0",
    )
    min_lr: NotNegative = Field(0.0, description="the learning rate is never reduced below this")


Schedule = Annotated[Constant | Piecewise | Cosine | Plateau, Field(discriminator="name")]


def refuse_steps_beyond_the_end(schedule: Schedule, epochs: int) -> None:
    """Raises a ValueError if a schedule changes the learning rate after the phase's last epoch."""
    if isinstance(schedule, Piecewise) and schedule.epochs and schedule.epochs[-1] >= epochs:
        raise ValueError(
            f"schedule.epochs: expected epochs below {epochs}, the phase's own, received {schedule.epochs}"
        )
    if schedule.warm_up >= epochs:
        raise ValueError(
            f"schedule.warm_up: expected less than the phase's {epochs} epochs, received {schedule.warm_up}"
        )


class CrossEntropy(Section):
    """Cross-entropy: minus the logarithm of the probability of the right class."""

    name: Literal["crossentropy"] = "crossentropy"
    label_smoothing: Fraction = Field(0.0, description=SMOOTHING)


class Focal(Section):
    """Focal loss (Lin et al., arXiv:1708.02002): images that are already classified well count less."""

    name: Literal["focal"]
    gamma: NotNegative = Field(
        2.0, description="the larger, the less do images count that are already classified well; 0: cross-entropy"
    )
    label_smoothing: Fraction = Field(0.0, description=SMOOTHING)


Loss = Annotated[CrossEntropy | Focal, Field(discriminator="name")]


class NoAverage(Section):
    """No average: the weights after the epoch's last step."""

    name: Literal["none"] = "none"


class Ema(Section):
    """An exponential moving average of the weights after each step (Polyak and Juditsky 1992; Izmailov et al. 2018).

    In the first steps the decay is smaller, min(decay, (1 + step) / (10 + step)), so that the average soon forgets the
    initial weights.
    """

    name: Literal["ema"]
    decay: Share = Field(
        0.99, description="how much of the average each step keeps: it covers about the last 1 / (1 - decay) steps"
    )


Average = Annotated[NoAverage | Ema, Field(discriminator="name")]


# The validation figure by which epochs are compared; the other one breaks ties. The loss is the default: on five splits
# of 300 photos, the epoch with the lowest loss was 1 to 3 points better on test than the most accurate epoch.
Select = Literal["val_loss", "val_accuracy"]


class EarlyStopping(Section):
    """Ends a phase when the figure that `select` names has not improved on validation for `patience` epochs."""

    patience: Count | None = Field(
        None, description="epochs without improvement before the phase ends; null: it never ends early"
    )
    min_delta: NotNegative = Field(0.0, description="only a gain larger than this counts as an improvement")
    min_epochs: Whole = Field(0, description="the phase never ends before this many epochs")
