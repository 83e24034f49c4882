"""Keras's optimizers, by the settings of temper/settings/training.py, with what they lack.

They lack a rate that depends on the step and on the variable, weight decay that follows that rate, and averages of the
weights that are kept apart from the weights. All of it is computed inside the compiled step, and what it remembers are
variables of the optimizer, which the unfinished state holds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from temper.settings.training import Optimizer


@dataclass(frozen=True)
class Extras:
    """What an optimizer does beyond Keras's; the defaults add nothing, to the bit.

    Attributes:
        factor: what the rate is multiplied by, by the number of batches before this one in the phase.
        scales: what the rate is multiplied by for each trainable variable, in their order.
        average: the decay of an exponential moving average of the weights.
        accumulate: batches whose gradients are averaged for one step.
        scale_loss: whether the loss is scaled so that float16 gradients do not vanish.
    """

    factor: Callable[[Any], Any] | None = None
    scales: tuple[float, ...] | None = None
    average: float | None = None
    accumulate: int = 1
    scale_loss: bool = False


class Extended(keras.optimizers.Optimizer):
    """Mixed into one of Keras's optimizers.

    Attributes:
        extras: what it does beyond Keras's.
        decay: the weight decay, as a share of the rate.
        averages: those of the trainable variables, in their order; empty where none are kept.
    """

    extras = Extras()
    decay = 0.0

    def build(self, variables: list[keras.Variable]) -> None:
        """Makes the variables of the optimizer; averages start as the weights are."""
        if self.built:
            return
        super().build(variables)
        self.decayed = frozenset(number for number, variable in enumerate(variables) if len(variable.shape) > 1)
        self.averages: list[keras.Variable] = []
        if self.extras.average is not None:
            self.averages = [self.add_variable_from_reference(variable, "average") for variable in variables]
            for average, variable in zip(self.averages, variables, strict=True):
                average.assign(variable)

    @property
    def learning_rate(self) -> Any:
        """The rate of the step at hand; what is assigned is multiplied by the factor of each step."""
        rate = super().learning_rate
        return rate if self.extras.factor is None else rate * self.extras.factor(self._iterations)

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        keras.optimizers.Optimizer.learning_rate.fset(self, rate)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Changes one variable, at its own rate, after its own decay."""
        number = self._get_variable_index(variable)
        if self.extras.scales is not None:
            learning_rate = learning_rate * self.extras.scales[number]
        if self.decay and number in self.decayed:
            share = keras.ops.cast(learning_rate, variable.dtype) * keras.ops.cast(self.decay, variable.dtype)
            self.assign_sub(variable, variable * share)
        super().update_step(gradient, variable, learning_rate)

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Changes all variables, and their averages after them."""
        super().apply(grads, trainable_variables)
        if self.extras.average is not None:
            self._follow(self.extras.average)

    def _follow(self, decay: float) -> None:
        """Moves the averages towards the weights after a step; batches that are only accumulated leave them still."""
        ops, every = keras.ops, self.extras.accumulate
        step = ops.cast(self._iterations // every, "float32") - 1.0
        kept = ops.minimum(decay, (1.0 + step) / (10.0 + step))
        kept = ops.where(ops.equal(self._iterations % every, 0), kept, 1.0)
        for average, variable in zip(self.averages, self._trainable_variables, strict=True):
            average.assign(average * kept + variable * (1.0 - kept))


def build(settings: Optimizer, lr: float, extras: Extras | None = None) -> keras.optimizers.Optimizer:
    """The optimizer that the settings name, with the rate `lr`, their own values as its arguments, and extras.

    The weight decay of Keras would ignore `scales`; this one does not, and spares variables of one dimension: biases,
    and the gamma and beta of norms.
    """
    extras = extras or Extras()
    arguments = settings.model_dump(exclude={"name", "weight_decay"})
    if extras.accumulate > 1:
        arguments["gradient_accumulation_steps"] = extras.accumulate
    kind = getattr(keras.optimizers, settings.keras_class)
    optimizer: Extended = type(kind.__name__, (Extended, kind), {})(lr, **arguments)
    optimizer.extras, optimizer.decay = extras, getattr(settings, "weight_decay", 0.0)
    return keras.optimizers.LossScaleOptimizer(optimizer) if extras.scale_loss else optimizer


def averages(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The averages that an optimizer of `build` keeps of the trainable variables; empty where it keeps none."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    kept: list[keras.Variable] = inner.averages
    return kept
