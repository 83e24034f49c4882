"""Keras's optimizers, by the settings of temper/settings/training.py, with what they lack.

They lack a rate that depends on the step and on the variable, weight decay that follows that rate, averages of the
weights that are kept apart from the weights, and variables that join later. All of it is computed inside the compiled
step, and what it remembers are variables of the optimizer, which the unfinished state holds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from temper.settings.training import Optimizer

JOINED = "joined"


@dataclass(frozen=True)
class Extras:
    """What an optimizer does beyond Keras's; the defaults add nothing, to the bit.

    Attributes:
        factor: what the rate is multiplied by, by the number of batches before this one in the phase.
        scales: what the rate is multiplied by for each trainable variable, in their order.
        average: the decay of an exponential moving average of the weights.
        accumulate: batches whose gradients are averaged for one step.
        scale_loss: whether the loss is scaled so that float16 gradients do not vanish.
        grows: whether variables join later, by `carry_over`.
    """

    factor: Callable[[Any], Any] | None = None
    scales: tuple[float, ...] | None = None
    average: float | None = None
    accumulate: int = 1
    scale_loss: bool = False
    grows: bool = False


class Extended(keras.optimizers.Optimizer):
    """Mixed into one of Keras's optimizers.

    Attributes:
        extras: what it does beyond Keras's.
        decay: the weight decay, as a share of the rate.
        averages: those of the trainable variables, in their order; empty where none are kept.
        joined: the number of steps before each trainable variable joined, in their order; empty where all were there.
        slots: what is remembered of one trainable variable, by that variable's id, as Keras knows it, and a name.
    """

    extras = Extras()
    decay = 0.0
    _number: int | None = None  # of the variable that is changed at the moment

    def build(self, variables: list[keras.Variable]) -> None:
        """Makes the variables of the optimizer; averages start as the weights are."""
        if self.built:
            return
        self.slots: dict[tuple[int, str], keras.Variable] = {}
        super().build(variables)
        self.decayed = frozenset(number for number, variable in enumerate(variables) if len(variable.shape) > 1)
        self.averages: list[keras.Variable] = []
        if self.extras.average is not None:
            self.averages = [self.add_variable_from_reference(variable, "average") for variable in variables]
            for average, variable in zip(self.averages, variables, strict=True):
                average.assign(keras.ops.copy(variable))  # JAX frees an array once for each who holds it
        self.joined: list[keras.Variable] = []
        if self.extras.grows:
            self.joined = [self.add_variable((), dtype=self._iterations.dtype, name=JOINED) for _ in variables]
            for joined, variable in zip(self.joined, variables, strict=True):
                self.slots[id(variable), JOINED] = joined

    def add_variable_from_reference(
        self, reference_variable: keras.Variable, name: str | None = None, initializer: Any = "zeros"
    ) -> keras.Variable:
        """As Keras's, and remembers whose it is."""
        slot = super().add_variable_from_reference(reference_variable, name, initializer)
        self.slots[id(reference_variable), str(name)] = slot
        return slot

    @property
    def iterations(self) -> Any:
        """The number of steps; for the variable at hand, of those since it joined.

        Adam divides its means by what they lack as long as they are young. A variable that joined at step 1,000 with
        empty means would else take steps six times too large, for dozens of steps.
        """
        steps = super().iterations
        return steps - self.joined[self._number] if self.joined and self._number is not None else steps

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
        self._number = number
        super().update_step(gradient, variable, learning_rate)
        self._number = None

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


def carry_over(old: keras.optimizers.Optimizer, new: keras.optimizers.Optimizer) -> None:
    """Lets an optimizer go on where another one was that was built for fewer of the same variables.

    What the old one remembers of a variable is copied, and so are the number of steps, the rate and the scale of the
    loss. Variables that only the new one has join now: with empty means, and with averages that are their weights.

    Args:
        old, new: of `build`, from the same settings, with extras that grow.
    """
    inner_old, inner_new = (getattr(one, "inner_optimizer", one) for one in (old, new))
    for key, slot in inner_new.slots.items():
        if key in inner_old.slots:
            slot.assign(keras.ops.copy(inner_old.slots[key]))
        elif key[1] == JOINED:
            slot.assign(keras.ops.copy(inner_old.iterations))
    for kept, shared in zip(_of_no_variable(old, inner_old), _of_no_variable(new, inner_new), strict=True):
        shared.assign(keras.ops.copy(kept))


def _of_no_variable(optimizer: keras.optimizers.Optimizer, inner: Extended) -> list[keras.Variable]:
    """What an optimizer remembers that is not of one trainable variable: steps, rate, scale of the loss."""
    slots = {id(slot) for slot in inner.slots.values()}
    return [variable for variable in optimizer.variables if id(variable) not in slots]


def averages(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The averages that an optimizer of `build` keeps of the trainable variables; empty where it keeps none."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    kept: list[keras.Variable] = inner.averages
    return kept
