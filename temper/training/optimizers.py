"""Builds the Keras optimizers that the settings in temper/settings/training.py name, with what Keras's lack.

Keras's optimizers lack: a learning rate for each step and each variable, weight decay proportional to that rate, a
moving average of the weights that is stored beside the weights, and variables that start to train later in the phase.
All of this is computed inside the compiled training step. Its state lives in variables of the optimizer, so the
unfinished state of a phase includes it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from temper.settings.training import Optimizer

JOINED = "joined"


@dataclass(frozen=True)
class Extras:
    """What an optimizer does beyond Keras's own; with the defaults, its results are bit-identical to Keras's.

    Attributes:
        factor: maps the number of batches already trained in this phase to a multiplier of the learning rate.
        scales: a multiplier of the learning rate for each trainable variable, in the model's order.
        average: the decay of an exponential moving average of the weights; `None`: no average is kept.
        accumulate: the number of batches whose gradients are averaged into one optimizer step.
        scale_loss: whether to scale the loss, so that small float16 gradients do not underflow to zero.
        grows: whether variables may start to train later in the phase, by `carry_over`.
    """

    factor: Callable[[Any], Any] | None = None
    scales: tuple[float, ...] | None = None
    average: float | None = None
    accumulate: int = 1
    scale_loss: bool = False
    grows: bool = False


class Extended(keras.optimizers.Optimizer):
    """Adds `Extras` to one of Keras's optimizers; `build` below mixes it into the chosen class.

    Attributes:
        extras: what it does beyond Keras's own optimizer.
        decay: the weight decay: each step shrinks a weight by this times the learning rate.
        averages: the moving average of each trainable variable, in the model's order; empty if none is kept.
        joined: for each trainable variable, the optimizer's step count when it began to train, in the model's order;
            empty if all variables train from the start.
        slots: the optimizer variables that belong to one trainable variable (Adam's moments, for example), by the
            `id()` of the trainable variable and the slot's name.
    """

    extras = Extras()
    decay = 0.0
    _number: int | None = None  # the index of the trainable variable that is being updated

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the optimizer's variables; the averages start as copies of the weights."""
        if self.built:
            return
        self.slots: dict[tuple[int, str], keras.Variable] = {}
        super().build(variables)
        self.decayed = frozenset(number for number, variable in enumerate(variables) if len(variable.shape) > 1)
        self.averages: list[keras.Variable] = []
        if self.extras.average is not None:
            self.averages = [self.add_variable_from_reference(variable, "average") for variable in variables]
            for average, variable in zip(self.averages, variables, strict=True):
                average.assign(keras.ops.copy(variable))  # JAX frees an array once per holder: two must not share one
        self.joined: list[keras.Variable] = []
        if self.extras.grows:
            self.joined = [self.add_variable((), dtype=self._iterations.dtype, name=JOINED) for _ in variables]
            for joined, variable in zip(self.joined, variables, strict=True):
                self.slots[id(variable), JOINED] = joined

    def add_variable_from_reference(
        self, reference_variable: keras.Variable, name: str | None = None, initializer: Any = "zeros"
    ) -> keras.Variable:
        """As in Keras; also records in `slots` which variable the new one belongs to."""
        slot = super().add_variable_from_reference(reference_variable, name, initializer)
        self.slots[id(reference_variable), str(name)] = slot
        return slot

    @property
    def iterations(self) -> Any:
        """The number of steps; during the update of one variable, the number of steps since it began to train.

        Adam's bias correction depends on this number. With the phase's own count, a variable that joins at step 1,000
        with zero moments would take steps six times too large, for dozens of steps.
        """
        steps = super().iterations
        return steps - self.joined[self._number] if self.joined and self._number is not None else steps

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the current step: the assigned rate times the factor of this step."""
        rate = super().learning_rate
        return rate if self.extras.factor is None else rate * self.extras.factor(self._iterations)

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        keras.optimizers.Optimizer.learning_rate.fset(self, rate)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable: first its weight decay, then the gradient step, both at the variable's own rate."""
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
        """Updates all variables, then their moving averages."""
        super().apply(grads, trainable_variables)
        if self.extras.average is not None:
            self._follow(self.extras.average)

    def _follow(self, decay: float) -> None:
        """Moves the averages towards the weights after a step; a batch that is only accumulated does not move them."""
        ops, every = keras.ops, self.extras.accumulate
        step = ops.cast(self._iterations // every, "float32") - 1.0
        kept = ops.minimum(decay, (1.0 + step) / (10.0 + step))
        kept = ops.where(ops.equal(self._iterations % every, 0), kept, 1.0)
        for average, variable in zip(self.averages, self._trainable_variables, strict=True):
            average.assign(average * kept + variable * (1.0 - kept))


def build(settings: Optimizer, lr: float, extras: Extras | None = None) -> keras.optimizers.Optimizer:
    """Builds the optimizer that the settings name, with learning rate `lr` and the extras.

    Weight decay is our own: Keras's would ignore `scales`. It leaves out one-dimensional variables, which are biases
    and the gamma and beta of normalization layers.
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
    """Copies the state of an optimizer into a new one that was built for more variables of the same model.

    Copied are the slots of each variable that both train, the number of steps, the learning rate and the loss scale.
    A variable that only `new` has starts now, with zero moments and with its current weights as its moving average.

    Args:
        old, new: optimizers that `build` made from the same settings, with `grows` in their extras.
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
    """The optimizer's variables that belong to no single trainable variable: step count, learning rate, loss scale."""
    slots = {id(slot) for slot in inner.slots.values()}
    return [variable for variable in optimizer.variables if id(variable) not in slots]


def averages(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The moving averages of the trainable variables in an optimizer that `build` made; empty if it keeps none."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    kept: list[keras.Variable] = inner.averages
    return kept
