"""The settings of `warm_up`, the first phase: it trains the head alone."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from temper.settings.base import Count, Fraction, NotNegative, Rate, Section, Seed, StageSettings, Width
from temper.settings.training import (
    Adam,
    Constant,
    EarlyStopping,
    Optimizer,
    Schedule,
    Select,
    refuse_steps_beyond_the_end,
)

# Ready-made heads by name. Each key that params.yaml gives replaces the value here.
READY_MADE: dict[str, dict[str, Any]] = {
    "linear": {},
    "light": {"units": [128], "dropout": 0.15},
    "heavy": {"units": [512, 256], "batch_norm": "before", "dropout": 0.5},
}


def _no_bool(value: Any) -> Any:
    """Refuses true and false, which this key took in earlier versions, and names their replacement."""
    if isinstance(value, bool):
        raise ValueError(
            f"expected none, before or after (the activation), received {str(value).lower()}; "
            f"write {'before' if value else 'none'} instead"
        )
    return value


class Head(Section):
    """The head on top of the backbone: dense layers, if any, then one output for each class."""

    like: Literal["linear", "light", "heavy"] = Field(
        "linear",
        description="a ready-made head, whose values the other keys here replace. linear: no layers before the output; "
        "light: one layer of 128, dropout 0.15; heavy: layers of 512 and 256, batch_norm before, dropout 0.5",
    )
    units: list[Width] = Field([], description="the widths of the dense layers before the output")
    activation: Literal["relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "tanh", "sigmoid"] = Field(
        "relu", description="the activation of these layers"
    )
    batch_norm: Annotated[Literal["none", "before", "after"], BeforeValidator(_no_bool)] = Field(
        "none", description="BatchNorm in each of these layers, before or after its activation"
    )
    dropout: Fraction = Field(0.2, description="the share of the features dropped at random in each training step")
    l1: NotNegative = Field(
        0.0, description="L1 penalty: this times the sum of the absolute values of the head's kernels joins the loss"
    )
    l2: NotNegative = Field(
        0.0, description="L2 penalty: this times the sum of the squares of the head's kernels joins the loss"
    )
    output: Literal["softmax", "sigmoid"] = Field(
        "softmax",
        description="softmax: one logit for each class; sigmoid: a single logit, for two classes only; the model gives "
        "two probabilities either way",
    )

    @model_validator(mode="before")
    @classmethod
    def _ready_made(cls, given: Any) -> Any:
        like = given.get("like") if isinstance(given, dict) else None
        return READY_MADE.get(like, {}) | given if isinstance(like, str) else given

    @model_validator(mode="after")
    def _no_setting_without_use(self) -> "Head":
        for name in ("activation", "batch_norm") if not self.units else ():
            if name in self.model_fields_set and getattr(self, name) != Head.model_fields[name].default:
                raise ValueError(f"{name} belongs to layers before the output, received units: []; remove it")
        return self


class WarmUp(Section):
    """The first phase, which trains the head alone, on the embeddings of the frozen backbone."""

    solver: Literal["gradient", "logistic"] = Field(
        "gradient",
        description="gradient: trains any head with an optimizer, epoch by epoch; logistic: solves the logistic "
        "regression of a linear head exactly, in seconds and without a learning rate to choose",
    )
    C: list[Rate] = Field(
        [1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0],
        min_length=1,
        description="with logistic: the values of scikit-learn's C to try, in rising order; a larger C penalizes large "
        "weights less; the best on validation is kept",
    )
    head: Head = Field(Head(), description="the head that is put on the backbone")
    epochs: Count = Field(30, description="the maximum number of epochs")
    lr: Rate = Field(1e-3, description="the learning rate that the phase starts with")
    optimizer: Optimizer = Field(Adam(), description="the optimizer and its own settings")
    schedule: Schedule = Field(Constant(), description="how the learning rate changes during the phase")
    early_stopping: EarlyStopping = Field(EarlyStopping(), description="when the phase ends before its last epoch")
    select: Select = Field(
        "val_loss", description="the validation figure that decides which epoch is kept; the other one breaks ties"
    )

    @model_validator(mode="after")
    def _schedule_ends_in_time(self) -> "WarmUp":
        refuse_steps_beyond_the_end(self.schedule, self.epochs)
        return self

    @model_validator(mode="after")
    def _no_setting_of_the_other_solver(self) -> "WarmUp":
        if self.solver == "gradient":
            strange = [name for name in ("C",) if name in self.model_fields_set]
        else:
            strange = sorted(self.model_fields_set - {"solver", "C", "head"})
            strange += [f"head.{name}" for name in sorted(self.head.model_fields_set - {"like", "output", "units"})]
            if self.head.units:
                raise ValueError(
                    "warm_up.solver: logistic is for a linear head, received "
                    f"warm_up.head.units: {self.head.units}; set solver: gradient"
                )
            if sorted(set(self.C)) != self.C:
                raise ValueError(f"warm_up.C: expected rising values, received {self.C}")
        for name in strange:
            raise ValueError(
                f"warm_up.{name} is not a setting of solver: {self.solver}: remove it, "
                f"for an experiment with -S '~warm_up.{name}'"
            )
        return self


class Settings(StageSettings):
    """What `warm_up` reads."""

    seed: Seed
    batch_size: Width = Field(
        description="images in a batch, in both phases; fine_tune.batch_size can set another size for the fine-tune"
    )
    warm_up: WarmUp = Field(description="the first phase, which trains a new head on the frozen backbone")
