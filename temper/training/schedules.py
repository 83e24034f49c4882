"""What a phase decides between epochs, computed from its history alone.

Each is a function of the records of the finished epochs: nothing has counters of its own that a killed run could lose.
"""

import math
from collections.abc import Sequence

from temper.settings.training import Constant, Cosine, EarlyStopping, Piecewise, Plateau, Schedule, Select

Record = dict[str, float]  # of one epoch: loss, accuracy, val_loss, val_accuracy, learning_rate


def rate(schedule: Schedule, lr: float, epochs: int, history: Sequence[Record]) -> float:
    """The learning rate of the epoch that follows `history`.

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
        case Cosine():
            progress = epoch / epochs
            return lr * (schedule.end + (1 - schedule.end) * (1 + math.cos(math.pi * progress)) / 2)
        case Plateau():
            return _plateau_rate(schedule, lr, history)


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


def stopped(stopping: EarlyStopping, history: Sequence[Record], select: Select = "val_accuracy") -> bool:
    """Whether the phase ends after `history`, as keras.callbacks.EarlyStopping on the selected figure."""
    if stopping.patience is None:
        return False
    best, waited = -math.inf, 0
    for record in history:
        waited += 1
        figure = record["val_accuracy"] if select == "val_accuracy" else -record["val_loss"]
        if figure - stopping.min_delta > best:
            best, waited = figure, 0
    return waited >= stopping.patience


def best_epoch(history: Sequence[Record], select: Select = "val_accuracy") -> int:
    """The number of the best epoch on validation.

    Accuracy alone cannot tell many epochs apart on a validation split of a few dozen photos: the first epoch is often
    as accurate as all later ones, while the loss still falls. So each figure decides where the other one is equal; of
    epochs equal in both, the first is the best.

    Args:
        history: at least one record.
        select: "val_accuracy" takes the highest accuracy, "val_loss" the lowest loss.
    """
    return max(range(len(history)), key=lambda epoch: _merit(history[epoch], select))


def beats(record: Record, start: Record, select: Select = "val_accuracy") -> bool:
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
