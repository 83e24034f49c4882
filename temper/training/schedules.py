"""What a phase decides between epochs, computed from its history alone.

Each is a function of the records of the finished epochs: nothing has counters of its own that a killed run could lose.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from temper.settings.training import Constant, Cosine, EarlyStopping, Piecewise, Plateau, Schedule, Select

Factor = Callable[[Any], Any]
Record = dict[str, float]  # of one epoch: loss, accuracy, val_loss, val_accuracy, learning_rate


def rate(schedule: Schedule, lr: float, epochs: int, history: Sequence[Record]) -> float:
    """The learning rate of the epoch that follows `history`, before the factor of each of its steps.

    Args:
        lr: the rate that the phase starts with.
        epochs: how many the phase has at most.
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
    """What the rate of an epoch is multiplied by in each step; `None` where it is 1 in all.

    It is a function of the step's number alone and runs inside the compiled step, where nothing can be lost.

    Args:
        epochs: how many the phase has at most.
        batches: of an epoch.

    Returns:
        a function of the number of steps before this one in the phase, an integer tensor -> a float32 tensor.
    """
    by_step = isinstance(schedule, Cosine) and schedule.by == "step"
    rising = schedule.warm_up * batches  # steps, also parts of one
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
    """As keras.callbacks.ReduceLROnPlateau on val_loss."""
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
    """Whether the phase ends after `history`, as keras.callbacks.EarlyStopping on the selected figure.

    Args:
        start: the figures before the first epoch, where they count: an epoch that does not beat them is no gain.
    """
    if stopping.patience is None or len(history) < stopping.min_epochs:
        return False
    gains = improved(history, select, stopping.min_delta, start)
    return not any(gains[-stopping.patience :]) and len(gains) >= stopping.patience


def improved(history: Sequence[Record], select: Select, min_delta: float, start: Record | None) -> list[bool]:
    """Whether each epoch has a better selected figure, by more than `min_delta`, than all before it.

    Args:
        start: the figures before the first epoch, where they count.
    """
    best, gains = -math.inf if start is None else _figure(start, select), []
    for record in history:
        gains.append(_figure(record, select) - min_delta > best)
        best = _figure(record, select) if gains[-1] else best
    return gains


def _figure(record: Record, select: Select) -> float:
    """The selected figure, the higher the better."""
    return record["val_accuracy"] if select == "val_accuracy" else -record["val_loss"]


def best_epoch(history: Sequence[Record], select: Select = "val_loss") -> int:
    """The number of the best epoch on validation.

    Accuracy alone cannot tell many epochs apart on a validation split of a few dozen photos: the first epoch is often
    as accurate as all later ones, while the loss still falls. So each figure decides where the other one is equal; of
    epochs equal in both, the first is the best.

    Args:
        history: at least one record.
        select: "val_accuracy" takes the highest accuracy, "val_loss" the lowest loss.
    """
    return max(range(len(history)), key=lambda epoch: _merit(history[epoch], select))


def beats(record: Record, start: Record, select: Select = "val_loss") -> bool:
    """Whether an epoch is better than `start`, by the rule of `best_epoch`; an equal one is not.

    `start` has the figures that the weights had before training, measured as `record` was: by the same model on the
    same validation images. Any epoch of a history beats it if, and only if, the best epoch does. If none does, whoever
    trained keeps the weights it started from.

    Args:
        record, start: val_accuracy and val_loss are read.
    """
    return _merit(record, select) > _merit(start, select)


def _merit(record: Record, select: Select) -> tuple[float, float]:
    """What makes an epoch better than another, the higher the better: the selected figure, then the other one."""
    accuracy, loss = record["val_accuracy"], record["val_loss"]
    return (accuracy, -loss) if select == "val_accuracy" else (-loss, accuracy)
