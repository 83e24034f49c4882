"""What a phase decides between epochs: the learning rate, whether to stop, and which epoch is the best.

Each decision is a pure function of the records of the finished epochs. There are no counters of its own that a killed
run could lose.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from temper.settings.training import Constant, Cosine, EarlyStopping, Piecewise, Plateau, Schedule, Select

Factor = Callable[[Any], Any]
Record = dict[str, float]  # the figures of one epoch: loss, accuracy, val_loss, val_accuracy, learning_rate


def rate(schedule: Schedule, lr: float, epochs: int, history: Sequence[Record]) -> float:
    """The learning rate of the epoch that follows `history`, before each step's factor (see `step_factor`).

    Args:
        lr: the rate that the phase starts with.
        epochs: the maximum number of epochs of the phase.
    """
    epoch = len(history)
    match schedule:
        case Constant():
            return lr
        case Piecewise():
            passed = sum(epoch >= boundary for boundary in schedule.epochs)
            return lr * [1.0, *schedule.factors][passed]
        case Cosine(by="step"):
            return lr
        case Cosine():
            progress = epoch / epochs
            return lr * (schedule.end + (1 - schedule.end) * (1 + math.cos(math.pi * progress)) / 2)
        case Plateau():
            return _plateau_rate(schedule, lr, history)


def step_factor(schedule: Schedule, epochs: int, batches: int) -> Factor | None:
    """The factor by which each step multiplies the epoch's learning rate; `None` if it is 1 in every step.

    The factor depends on the step's number alone and is computed inside the compiled training step, so it has no state
    that a killed run could lose.

    Args:
        epochs: the maximum number of epochs of the phase.
        batches: the number of batches in an epoch.

    Returns:
        a function from the number of steps before this one in the phase (an integer tensor) to the factor (float32).
    """
    by_step = isinstance(schedule, Cosine) and schedule.by == "step"
    rising = schedule.warm_up * batches  # in steps; not always a whole number
    if not by_step and not rising:
        return None

    def factor(step: Any) -> Any:
        done = keras.ops.cast(step, "float32")
        value = keras.ops.ones_like(done)
        if isinstance(schedule, Cosine) and by_step:
            fallen = (1 + keras.ops.cos(math.pi * done / (epochs * batches))) / 2
            value = schedule.end + (1 - schedule.end) * fallen
        return value * keras.ops.minimum((done + 1) / rising, 1.0) if rising else value

    return factor


def _plateau_rate(schedule: Plateau, lr: float, history: Sequence[Record]) -> float:
    """The same rate as keras.callbacks.ReduceLROnPlateau on val_loss gives."""
    best, waited, cooling = math.inf, 0, 0
    for record in history:
        if cooling:
            cooling -= 1
            waited = 0
        if record["val_loss"] < best - schedule.min_delta:
            best, waited = record["val_loss"], 0
        elif not cooling:
            waited += 1
            if waited >= schedule.patience and lr > schedule.min_lr:
                lr = max(lr * schedule.factor, schedule.min_lr)
                waited, cooling = 0, schedule.cooldown
    return lr


def stopped(
    stopping: EarlyStopping, history: Sequence[Record], select: Select = "val_loss", start: Record | None = None
) -> bool:
    """Whether the phase ends after `history`, by the rule of keras.callbacks.EarlyStopping on the selected figure.

    Args:
        start: the figures before the first epoch, if they count as epoch 0: an epoch improves only if it beats them.
    """
    if stopping.patience is None or len(history) < stopping.min_epochs:
        return False
    gains = improved(history, select, stopping.min_delta, start)
    return not any(gains[-stopping.patience :]) and len(gains) >= stopping.patience


def improved(history: Sequence[Record], select: Select, min_delta: float, start: Record | None) -> list[bool]:
    """For each epoch, whether its selected figure is better than the best before it by more than `min_delta`.

    Args:
        start: the figures before the first epoch, if they count as epoch 0; then the first epoch must beat them.
    """
    best, gains = -math.inf if start is None else _figure(start, select), []
    for record in history:
        gains.append(_figure(record, select) - min_delta > best)
        best = _figure(record, select) if gains[-1] else best
    return gains


def _figure(record: Record, select: Select) -> float:
    """The selected figure, with its sign such that higher is better."""
    return record["val_accuracy"] if select == "val_accuracy" else -record["val_loss"]


def best_epoch(history: Sequence[Record], select: Select = "val_loss") -> int:
    """The index in `history`, from 0, of the best epoch on validation.

    Accuracy alone cannot tell many epochs apart on a validation split of a few dozen photos: the first epoch is often
    as accurate as all later ones, while the loss still falls. So the other figure breaks ties in the selected one; of
    epochs that are equal in both, the first is the best.

    Args:
        history: at least one record.
        select: "val_accuracy" takes the highest accuracy, "val_loss" the lowest loss.
    """
    return max(range(len(history)), key=lambda epoch: _merit(history[epoch], select))


def beats(record: Record, start: Record, select: Select = "val_loss") -> bool:
    """Whether an epoch is better than `start`, by the rule of `best_epoch`; an equal epoch is not.

    `start` holds the figures of the weights before training, measured like `record`: by the same model on the same
    validation images. If the best epoch of a history does not beat it, none does, and the caller keeps the weights
    that it started from.

    Args:
        record, start: only val_accuracy and val_loss are read.
    """
    return _merit(record, select) > _merit(start, select)


def _merit(record: Record, select: Select) -> tuple[float, float]:
    """The sort key of an epoch, higher is better: the selected figure, then the other one to break ties."""
    accuracy, loss = record["val_accuracy"], record["val_loss"]
    return (accuracy, -loss) if select == "val_accuracy" else (-loss, accuracy)
