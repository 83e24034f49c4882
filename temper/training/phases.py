"""A phase of training: Keras's `fit`, one epoch at a time, exactly resumable."""

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np
from dvclive import Live

from temper.base.atomic import atomic_file
from temper.base.errors import TemperError
from temper.base.texts import write_json
from temper.settings.training import EarlyStopping, Optimizer, Schedule, Select
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
    select: Select
    counts_start: bool = False  # whether the weights before the first epoch are kept where no epoch is better (law 13)


@dataclass(frozen=True)
class Result:
    """What a phase came to.

    Attributes:
        history: a record an epoch; the first epoch is number 1.
        best_epoch: the number of the epoch whose weights the model has now; 0: those from before the phase.
        best: the record of that epoch, of which `val_accuracy` and `val_loss` are there in any case.
    """

    history: list[schedules.Record]
    best_epoch: int
    best: schedules.Record


def fit(
    model: keras.Model,
    phase: Phase,
    training: Callable[[int], keras.utils.PyDataset],
    validation: keras.utils.PyDataset,
    unfinished: Unfinished,
    live: Live,
) -> Result:
    """Trains a classifier and leaves it with the weights of its best epoch on validation.

    Every epoch's order and augmentation follow from the seed and the epoch's number, the rate and the end of the phase
    from the history; weights, the random states of dropout layers and the optimizer are saved after each epoch. A run
    that is killed and started again therefore ends in the same bits.

    Args:
        model: uncompiled, frozen as it should be trained.
        training: the batches of an epoch, by its number.
        live: what happened so far is logged again, for DVC has removed it.
    """
    model.compile(optimizers.build(phase.optimizer, phase.lr), "categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    state = unfinished.load()
    if state is not None and not _fits(model, state):
        unfinished.put_aside("that of another model")
        state = None
    if state is None:
        state = _start(model, phase, validation)
    else:
        print(f"going on after {len(state.history)} epochs, saved by a run that did not end")
        _assign(model.variables, state.weights)
        _assign(model.optimizer.variables, state.optimizer)
    _log_so_far(live, state)
    while len(state.history) < phase.epochs and not _stopped(phase, state):
        record = _fit_epoch(model, phase, training, validation, state.history)
        state.history.append(record)
        state.weights, state.optimizer = _arrays(model.variables), _arrays(model.optimizer.variables)
        if _best_epoch(phase, state) == len(state.history):
            state.best = state.weights
        unfinished.save(state)
        _log(live, record)
    _assign(model.variables, state.best)
    best_epoch = _best_epoch(phase, state)
    best = state.history[best_epoch - 1] if best_epoch else state.start
    assert best is not None  # epoch 0 is the best only where it was measured
    return Result(state.history, best_epoch, best)


def _fits(model: keras.Model, state: State) -> bool:
    """Whether a saved state has an array of the right shape for every variable of the model and of its optimizer."""
    expected = [[variable.shape for variable in of] for of in (model.variables, model.optimizer.variables)]
    received = [[array.shape for array in of] for of in (state.weights, state.optimizer)]
    return expected == received and bool(state.history) and len(state.best) == len(state.weights)


def _start(model: keras.Model, phase: Phase, validation: keras.utils.PyDataset) -> State:
    """The state before the first epoch; where the start counts, with its figures on validation."""
    if not phase.counts_start:
        return State([], [], [], [])
    figures = model.evaluate(validation, verbose=0, return_dict=True)
    start = {f"val_{name}": float(figures[name]) for name in ("accuracy", "loss")}
    return State([], [], [], _arrays(model.variables), start)


def _best_epoch(phase: Phase, state: State) -> int:
    """The number of the best epoch so far; 0 where none is better than the start, or none is over."""
    if not state.history:
        return 0
    best = schedules.best_epoch(state.history, phase.select)
    if state.start is not None and not schedules.beats(state.history[best], state.start, phase.select):
        return 0
    return best + 1


def _stopped(phase: Phase, state: State) -> bool:
    return schedules.stopped(phase.early_stopping, state.history, phase.select)


def _fit_epoch(
    model: keras.Model,
    phase: Phase,
    training: Callable[[int], keras.utils.PyDataset],
    validation: keras.utils.PyDataset,
    history: list[schedules.Record],
) -> schedules.Record:
    epoch = len(history)  # of those that are over
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
        raise TemperError(f"epoch {epoch + 1}: expected finite figures, received {record}; lower the learning rate")
    return record


def _arrays(variables: list[keras.Variable]) -> Arrays:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _assign(variables: list[keras.Variable], arrays: Arrays) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _log_so_far(live: Live, state: State) -> None:
    """Logs the start, where it counts, as step 0, and the epochs that are over as steps 1, 2, ..."""
    if state.start is not None:
        _log(live, state.start)
    else:
        live.step = 1
    for record in state.history:
        _log(live, record)


def _log(live: Live, record: schedules.Record) -> None:
    """Logs an epoch under DVCLive's names: train/..., validation/..., and the rate."""
    for name, value in record.items():
        if name == "learning_rate":
            live.log_metric(name, value)
        else:
            split = "validation" if name.startswith("val_") else "train"
            live.log_metric(f"{split}/{name.removeprefix('val_')}", value)
    live.next_step()


@contextmanager
def logged(phase: str) -> Iterator[Live]:
    """A Live that writes into metrics/PHASE and leaves dvc.yaml, git and the network alone; trackers follow it."""
    # Imported by name: trackers change nothing that a stage writes, so no stage depends on them (law 7).
    with (
        importlib.import_module("temper.tracking.hooks").following(phase) as listener,
        _Live(
            f"metrics/{phase}", resume=False, report=None, save_dvc_exp=False, dvcyaml=None, monitor_system=False
        ) as live,
    ):
        live.listener = listener
        yield live


class _Live(Live):
    """A Live with a listener, which is told each figure: its name, value and epoch."""

    listener: Callable[[str, float, int], None]

    def log_metric(self, name: str, val: float, **options: bool) -> None:
        super().log_metric(name, val, **options)
        self.listener(name, val, self.step)


def write_outcome(phase: str, result: Result, **facts: float) -> None:
    """Writes metrics/PHASE/metrics.json: what was kept, under names that no other phase has."""
    kept = {
        "epoch": result.best_epoch,
        "epochs": len(result.history),
        "best_val_accuracy": result.best["val_accuracy"],
        "best_val_loss": result.best["val_loss"],
        "train_accuracy": result.history[-1]["accuracy"],
        "train_loss": result.history[-1]["loss"],
        **facts,
    }
    with atomic_file(f"metrics/{phase}/metrics.json") as path:
        write_json(path, {f"{phase}_{name}": value for name, value in kept.items()})
