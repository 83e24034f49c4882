"""A phase of training: Keras's `fit`, one epoch at a time, exactly resumable."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from dvclive import Live

from temper.base.errors import TemperError
from temper.settings.training import EarlyStopping, Optimizer, Schedule
from temper.training import optimizers, schedules
from temper.training.unfinished import Arrays, State, Unfinished


@dataclass(frozen=True)
class Phase:
    """How to train."""

    epochs: int
    lr: float
    optimizer: Optimizer
    schedule: Schedule
    early_stopping: EarlyStopping


@dataclass(frozen=True)
class Result:
    """What a phase came to: a record an epoch, and the number of the epoch whose weights the model has now."""

    history: list[schedules.Record]
    best_epoch: int


def fit(
    model: keras.Model,
    phase: Phase,
    training: Callable[[int], keras.utils.PyDataset],
    validation: keras.utils.PyDataset,
    unfinished: Unfinished,
    live: Live,
) -> Result:
    """Trains a classifier and leaves it with the weights of its best epoch by val_accuracy.

    Every epoch's order and augmentation follow from the seed and the epoch's number, the rate and the end of the phase
    from the history; weights, the random states of dropout layers and the optimizer are saved after each epoch. A run
    that is killed and started again therefore ends in the same bits.

    Args:
        model: uncompiled, frozen as it should be trained.
        training: the batches of an epoch, by its number.
        live: what happened so far is logged again, for DVC has removed it.
    """
    model.compile(optimizers.build(phase.optimizer, phase.lr), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    state = unfinished.load()
    if state is None:
        state = State([], [], [], [])
    else:
        print(f"going on after {len(state.history)} epochs, saved by a run that did not end")
        _assign(model.variables, state.weights)
        _assign(model.optimizer.variables, state.optimizer)
    for record in state.history:
        _log(live, record)
    while len(state.history) < phase.epochs and not schedules.stopped(phase.early_stopping, state.history):
        record = _fit_epoch(model, phase, training, validation, state.history)
        state.history.append(record)
        state.weights, state.optimizer = _arrays(model.variables), _arrays(model.optimizer.variables)
        if schedules.best_epoch(state.history) == len(state.history) - 1:
            state.best = state.weights
        unfinished.save(state)
        _log(live, record)
    _assign(model.variables, state.best)
    return Result(state.history, schedules.best_epoch(state.history))


def _fit_epoch(
    model: keras.Model,
    phase: Phase,
    training: Callable[[int], keras.utils.PyDataset],
    validation: keras.utils.PyDataset,
    history: list[schedules.Record],
) -> schedules.Record:
    epoch = len(history)
    rate = schedules.rate(phase.schedule, phase.lr, phase.epochs, history)
    model.optimizer.learning_rate = rate
    logs = model.fit(
        training(epoch),
        validation_data=validation,
        initial_epoch=epoch,
        epochs=epoch + 1,
        shuffle=False,  # `training` decides the order
        verbose=int(sys.stdout.isatty()),
    ).history
    record = {name: float(values[0]) for name, values in logs.items()} | {"learning_rate": rate}
    if not all(map(math.isfinite, record.values())):
        raise TemperError(f"epoch {epoch}: expected finite figures, received {record}; lower the learning rate")
    return record


def _arrays(variables: list[keras.Variable]) -> Arrays:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _assign(variables: list[keras.Variable], arrays: Arrays) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _log(live: Live, record: schedules.Record) -> None:
    """Logs an epoch under DVCLive's names: train/..., validation/..., and the rate."""
    for name, value in record.items():
        if name == "learning_rate":
            live.log_metric(name, value)
        else:
            split = "validation" if name.startswith("val_") else "train"
            live.log_metric(f"{split}/{name.removeprefix('val_')}", value)
    live.next_step()


def open_live(folder: str) -> Live:
    """A Live that writes into `folder` and leaves dvc.yaml, git and the network alone; use it in a `with`."""
    return Live(folder, resume=False, report=None, save_dvc_exp=False, dvcyaml=None, monitor_system=False)


def log_outcome(live: Live, result: Result, **facts: int) -> None:
    """Logs, beside the last epoch's figures, those of the epoch whose weights are kept."""
    best = result.history[result.best_epoch]
    figures = {"epoch": result.best_epoch, "accuracy": best["val_accuracy"], "loss": best["val_loss"]}
    for name, value in figures.items():
        live.log_metric(f"best/{name}", value, plot=False)
    for name, value in facts.items():
        live.log_metric(name, value, plot=False)
