"""Trains a phase: calls Keras's `fit` for one epoch at a time, so that a killed run resumes to the same bits."""

import gc
import importlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import keras
import numpy as np
from dvclive import Live

from temper import devices
from temper.base.atomic import atomic_file
from temper.base.errors import TemperError
from temper.base.machine import is_first_process
from temper.base.texts import write_json
from temper.freezing.classifier import trainable_parameters
from temper.settings.training import (
    Average,
    CrossEntropy,
    EarlyStopping,
    Ema,
    Loss,
    NoAverage,
    Optimizer,
    Schedule,
    Select,
)
from temper.training import losses, optimizers, schedules
from temper.training.interrupts import Interrupts
from temper.training.unfinished import Arrays, State, Unfinished

# How many steps the backend runs before it returns to Python (`steps_per_execution`). It changes no result.
STEPS_AT_ONCE = 8
OPEN = "trainable_parameters"  # the key in an epoch's record; only phases that unfreeze gradually have it
TRAINED = "trained_loss"  # a metric: the training loss without the rows that only fill up a batch for the devices


@dataclass(frozen=True)
class Gradual:
    """Gradual unfreezing: which further layers open to training (become trainable) between epochs, and when.

    `open` alone decides which layers stay frozen; this module does not know layers (law 4).

    Attributes:
        due: given the records of the finished epochs, and the figures before the first epoch if they count as epoch 0,
            returns how many openings should have happened before the next epoch.
        open: given a number of openings, freezes and unfreezes layers accordingly, and returns the model to train from
            now on: uncompiled, with the same variables.
        places: for 0, 1, 2, ... openings, the name of the place from which the model is open, for messages.
    """

    due: Callable[[Sequence[schedules.Record], schedules.Record | None], int]
    open: Callable[[int], keras.Model]
    places: tuple[str, ...]

    def openings(self, history: Sequence[schedules.Record], start: schedules.Record | None) -> int:
        """The result of `due`, but at most the number of openings that exist."""
        return min(self.due(history, start), len(self.places) - 1)


@dataclass(frozen=True)
class Phase:
    """How to train.

    Attributes:
        epochs: the maximum number of epochs.
        lr: the learning rate that the schedule starts from.
        select: the validation figure that decides which epoch is the best.
        counts_start: whether the weights before the first epoch count as epoch 0, which is kept if no epoch beats it
            on validation (law 13).
        class_weights: the weight of an image of each class in the loss; `None`: all images count the same.
        scales: given the model, returns a multiplier of the learning rate for each of its trainable variables; `None`:
            1 for all.
        accumulate: the number of batches whose gradients are averaged into one optimizer step.
        scale_loss: whether to scale the loss, so that small float16 gradients do not underflow to zero.
        keep_on_interrupt: whether Ctrl-C ends the phase with the best epoch so far. Otherwise it stops the run, and
            the next run resumes.
        gradual: gradual unfreezing; `None`: the same variables train throughout.
    """

    epochs: int
    lr: float
    optimizer: Optimizer
    schedule: Schedule
    early_stopping: EarlyStopping
    select: Select
    counts_start: bool = False
    loss: Loss = field(default_factory=CrossEntropy)
    class_weights: losses.ClassWeights | None = None
    average: Average = field(default_factory=NoAverage)
    scales: Callable[[keras.Model], tuple[float, ...]] | None = None
    accumulate: int = 1
    scale_loss: bool = False
    keep_on_interrupt: bool = False
    gradual: Gradual | None = None


@dataclass(frozen=True)
class Result:
    """The outcome of a phase.

    Attributes:
        history: one record per epoch; the first epoch is number 1.
        best_epoch: the number of the epoch whose weights are kept; 0: the weights from before the phase.
        best: the record of that epoch. Epoch 0 has `val_accuracy` and `val_loss` only.
        start: the figures before the first epoch, if they count as epoch 0.
        refused: the number of an epoch that was better than the start, but by too little to be kept; 0: none.
        last: the weights of the last epoch, in the order of the trained model's variables.
    """

    history: list[schedules.Record]
    best_epoch: int
    best: schedules.Record
    start: schedules.Record | None = None
    refused: int = 0
    last: Arrays = field(default_factory=list, repr=False, compare=False)

    def without_gain(self) -> "Result":
        """The outcome if the best epoch is refused and the weights from before the phase are kept instead."""
        assert self.start is not None
        return replace(self, best_epoch=0, best=self.start, refused=self.best_epoch)


def fit(
    model: keras.Model,
    phase: Phase,
    training: Callable[[int], keras.utils.PyDataset],
    validation: keras.utils.PyDataset,
    unfinished: Unfinished,
    live: Live,
) -> Result:
    """Trains a classifier and leaves it with the weights of its best epoch on validation.

    A run that is killed and started again ends with the same bits as one that was not. The order of the images and
    their augmentation follow from the seed and the epoch's number. The learning rate, the trainable layers and the end
    of the phase follow from the history. The weights, the random state of dropout layers and the optimizer are saved
    after each epoch.

    Args:
        model: uncompiled, with the layers frozen that are frozen in the first epoch; uncompiled again at the end.
        training: returns the batches of an epoch, given its number from 0; every epoch has the same number of batches.
        live: the log. The epochs of a killed run are logged again, because DVC has removed its files.

    Raises:
        TemperError: the loss is no longer finite.
        KeyboardInterrupt: on Ctrl-C, unless the phase keeps what it has and at least one epoch is over.
    """
    factor = schedules.step_factor(phase.schedule, phase.epochs, len(training(0)))
    trained = _Trained(model, phase, factor, validation)
    state = _continued(trained, unfinished) or _start(model, phase, validation)
    _log_so_far(live, state)
    with _averaged(trained.model):
        last = arrays(trained.variables)
    with Interrupts(phase.keep_on_interrupt) as interrupts:
        while len(state.history) < phase.epochs and not _stopped(phase, state):
            trained.open_what_is_due(state)
            rate = schedules.rate(phase.schedule, phase.lr, phase.epochs, state.history)
            watch = Watch(interrupts, factor)
            logs = _train_epoch(trained.model, rate, training(len(state.history)), len(state.history), watch)
            if interrupts.asked:
                break
            with _averaged(trained.model):
                record = logs | _validate(trained.model, validation) | {"learning_rate": watch.highest_rate}
                record |= trained.how_much_is_open()
                _refuse_infinite(record, len(state.history) + 1)
                state.history.append(record)
                last = arrays(trained.variables)
                if _best_epoch(phase, state) == len(state.history):
                    state.best = last
            state.weights, state.optimizer = arrays(trained.variables), arrays(trained.model.optimizer.variables)
            unfinished.save(state)
            _log(live, record)
    if interrupts.asked and not state.history:
        print("no epoch is over, so there is nothing to keep; start again")
        raise KeyboardInterrupt
    assign(trained.variables, state.best)
    # Otherwise a file with this model in it could only be loaded where our optimizer's class is known:
    trained.model.compiled = False
    gc.collect()  # iterators in reference cycles, about which TensorFlow would complain when the process exits
    best_epoch = _best_epoch(phase, state)
    best = state.history[best_epoch - 1] if best_epoch else state.start
    assert best is not None  # epoch 0 can be the best only if it was measured
    return Result(state.history, best_epoch, best, state.start, last=last)


def try_steps(model: keras.Model, phase: Phase, batches: keras.utils.PyDataset) -> None:
    """Trains on a few batches as the phase would, to find out whether they fit into memory."""
    _compile(model, phase, None)
    model.fit(batches, shuffle=False, verbose=0)


class _Trained:
    """A compiled model while it trains.

    It is compiled again whenever more layers open, because `compile` fixes the set of trainable variables.

    Attributes:
        model: the model that trains now; `Gradual.open` may replace it.
        variables: the model's variables. They stay the same, in the same order, when the model is replaced.
    """

    def __init__(
        self,
        model: keras.Model,
        phase: Phase,
        factor: schedules.Factor | None,
        validation: keras.utils.PyDataset,
    ) -> None:
        self.model, self.variables = model, model.variables
        self._phase, self._factor, self._validation = phase, factor, validation
        self._openings = 0
        self._compile()

    def _compile(self) -> None:
        _compile(self.model, self._phase, self._factor)
        _build_step(self.model, self._validation)

    def open(self, openings: int) -> None:
        """Makes trainable what is open after this many openings, and keeps the state of the optimizer."""
        if self._phase.gradual is None or openings == self._openings:
            return
        before = self.model.optimizer
        self.model, self._openings = self._phase.gradual.open(openings), openings
        self._compile()
        optimizers.carry_over(before, self.model.optimizer)
        gc.collect()  # the old compiled steps, which reference cycles keep in memory

    def open_what_is_due(self, state: State) -> None:
        """Does the openings that are due before the next epoch, and prints the new place."""
        gradual, before = self._phase.gradual, self._openings
        if gradual is not None:
            self.open(gradual.openings(state.history, state.start))
            if self._openings > before:
                print(
                    f"epoch {len(state.history) + 1}: unfreezes the backbone from {gradual.places[self._openings]}",
                    flush=True,
                )

    def open_as_it_was(self, state: State) -> None:
        """Opens what was open in the last finished epoch, to match the weights and the optimizer in `state`."""
        if self._phase.gradual is not None:
            self.open(self._phase.gradual.openings(state.history[:-1], state.start))

    def how_much_is_open(self) -> schedules.Record:
        """The number of trainable parameters, as an entry of an epoch's record; empty if it never changes."""
        return {} if self._phase.gradual is None else {OPEN: float(trainable_parameters(self.model))}


def _compile(model: keras.Model, phase: Phase, factor: schedules.Factor | None) -> None:
    """Compiles the model with its loss, its optimizer and its metrics.

    Validation always measures cross-entropy, whatever the training loss, so that epochs, phases and experiments can be
    compared.
    """
    spread = devices.spread().devices > 1
    decay = phase.average.decay if isinstance(phase.average, Ema) else None
    scales, grows = None if phase.scales is None else phase.scales(model), phase.gradual is not None
    extras = optimizers.Extras(factor, scales, decay, phase.accumulate, phase.scale_loss, grows)
    loss = losses.build(phase.loss, phase.class_weights)
    metrics = [keras.metrics.CategoricalAccuracy("accuracy")]
    if phase.loss != CrossEntropy() or phase.class_weights is not None or model.losses or spread:
        metrics.append(keras.metrics.CategoricalCrossentropy("cross_entropy"))
    if spread:  # by default Keras would count the rows that only fill up a batch for the devices
        loss.reduction = "mean_with_sample_weight"
        metrics.append(keras.metrics.MeanMetricWrapper(loss.call, TRAINED))
    model.compile(
        optimizers.build(phase.optimizer, phase.lr, extras),
        loss,
        **{"weighted_metrics" if spread else "metrics": metrics},
        steps_per_execution=STEPS_AT_ONCE,
    )
    model.optimizer.build(model.trainable_variables)


def _build_step(model: keras.Model, validation: keras.utils.PyDataset) -> None:
    """Lets Keras build what it otherwise builds from the first training batch.

    On JAX, Keras takes that batch out of the process's first epoch and trains on it last. A run that resumes after
    a kill would do so in another epoch, and its bits would differ. No such effect is known with TensorFlow.
    """
    if keras.backend.backend() == "jax":
        model.test_on_batch(*validation[0])


def _continued(trained: _Trained, unfinished: Unfinished) -> State | None:
    """Loads the saved state into the model and its optimizer, and returns it; `None` if there is none that fits."""
    state = unfinished.load()
    if state is None:
        return None
    trained.open_as_it_was(state)
    if not _fits(trained, state):
        unfinished.put_aside("the state of another model")
        trained.open(0)
        return None
    print(f"resuming after epoch {len(state.history)} of an interrupted run")
    assign(trained.variables, state.weights)
    assign(trained.model.optimizer.variables, state.optimizer)
    return state


def _fits(trained: _Trained, state: State) -> bool:
    """Whether a saved state has an array of the right shape for every variable of the model and of its optimizer."""
    expected = [[variable.shape for variable in of] for of in (trained.variables, trained.model.optimizer.variables)]
    received = [[array.shape for array in of] for of in (state.weights, state.optimizer)]
    return expected == received and bool(state.history) and len(state.best) == len(state.weights)


def _start(model: keras.Model, phase: Phase, validation: keras.utils.PyDataset) -> State:
    """The state before the first epoch; if the start counts as epoch 0, its figures on validation are measured here."""
    if not phase.counts_start:
        return State([], [], [], [])
    return State([], [], [], arrays(model.variables), _validate(model, validation))


def _best_epoch(phase: Phase, state: State) -> int:
    """The number of the best epoch so far, from 1; 0 if none beats the start, or no epoch is over."""
    if not state.history:
        return 0
    best = schedules.best_epoch(state.history, phase.select)
    if state.start is not None and not schedules.beats(state.history[best], state.start, phase.select):
        return 0
    return best + 1


def _stopped(phase: Phase, state: State) -> bool:
    return schedules.stopped(phase.early_stopping, state.history, phase.select, state.start)


class Watch(keras.callbacks.Callback):
    """Watches the steps of one epoch: raises an error if the loss is not finite, and stops when the user asks.

    Attributes:
        highest_rate: the highest learning rate of the epoch's steps.
    """

    def __init__(self, interrupts: Interrupts, factor: schedules.Factor | None) -> None:
        super().__init__()
        self._interrupts, self._factor = interrupts, factor
        self._finite = 0  # the number of steps whose loss is known to be finite
        self.highest_rate = 0.0

    def begin(self, model: keras.Model, rate: float, epoch: int, batches: int) -> None:
        """Sets the learning rate of an epoch. The optimizer multiplies it by the factor of each step."""
        model.optimizer.learning_rate = rate
        self._epoch, self._batches = epoch, batches
        steps = np.arange(epoch * batches, (epoch + 1) * batches)
        factors = np.ones(1) if self._factor is None else keras.ops.convert_to_numpy(self._factor(steps))
        self._rates = rate * np.broadcast_to(factors, (batches,)).astype(float)
        self.highest_rate = float(self._rates.max())

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Called by Keras after every `STEPS_AT_ONCE` steps; `batch` is the number of the last one, from 0."""
        done = min(batch + 1, self._batches)
        loss = float((logs or {})["loss"])  # the mean of the epoch so far: once one step's is not finite, nor is this
        if not math.isfinite(loss):
            first = self._finite + 1
            steps = f"step {done}" if first == done else f"one of the steps {first} to {done}"
            raise TemperError(
                f"epoch {self._epoch + 1}, {steps} of {self._batches}: expected a finite loss, received {loss} at the "
                f"rate {self._rates[first - 1 : done].max():g}; lower lr, let it rise over schedule.warm_up epochs, or "
                "cut large gradients by optimizer.global_clipnorm"
            )
        self._finite = done
        if self._interrupts.asked:
            self.model.stop_training = True


def _train_epoch(
    model: keras.Model, rate: float, batches: keras.utils.PyDataset, epoch: int, watch: Watch
) -> schedules.Record:
    """Trains one epoch and returns its record. `epoch` is its number, from 0."""
    watch.begin(model, rate, epoch, len(batches))
    logs = model.fit(
        batches,
        initial_epoch=epoch,
        epochs=epoch + 1,
        shuffle=False,  # the batches decide the order
        callbacks=[watch],
        verbose=int(sys.stdout.isatty()),
    ).history
    return {"accuracy": float(logs["accuracy"][0]), "loss": float(logs.get(TRAINED, logs["loss"])[0])}


def _validate(model: keras.Model, validation: keras.utils.PyDataset) -> schedules.Record:
    """Measures val_accuracy and val_loss (the mean cross-entropy) of the model's current weights."""
    figures = model.evaluate(validation, verbose=0, return_dict=True)
    loss = figures.get("cross_entropy", figures["loss"])
    return {"val_accuracy": float(figures["accuracy"]), "val_loss": float(loss)}


@contextmanager
def _averaged(model: keras.Model) -> Iterator[None]:
    """Within its block, the trainable weights are replaced by their moving averages, if the optimizer keeps any.

    Variables that do not train are not averaged: the statistics of BatchNorm are moving averages already.
    """
    averages = optimizers.averages(model.optimizer)
    if not averages:
        yield
        return
    weights = arrays(model.trainable_variables)
    assign(model.trainable_variables, arrays(averages))
    yield
    assign(model.trainable_variables, weights)


def _refuse_infinite(record: schedules.Record, epoch: int) -> None:
    if not all(map(math.isfinite, record.values())):
        raise TemperError(f"epoch {epoch}: expected finite figures, received {record}; lower the learning rate")


def arrays(variables: list[keras.Variable]) -> Arrays:
    """Copies the values of variables into NumPy arrays."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables: list[keras.Variable], values: Arrays) -> None:
    """Sets variables to values that `arrays` returned."""
    for variable, array in zip(variables, values, strict=True):
        variable.assign(array)


def _log_so_far(live: Live, state: State) -> None:
    """Logs the start as step 0, if it counts, and the finished epochs as steps 1, 2, ..."""
    if state.start is not None:
        _log(live, state.start)
    else:
        live.step = 1
    for record in state.history:
        _log(live, record)


def _log(live: Live, record: schedules.Record) -> None:
    """Logs a record: train/..., validation/..., learning_rate, and trainable_parameters if the record has it."""
    for name, value in record.items():
        if name in ("learning_rate", OPEN):
            live.log_metric(name, value)
        else:
            split = "validation" if name.startswith("val_") else "train"
            live.log_metric(f"{split}/{name.removeprefix('val_')}", value)
    live.next_step()


@contextmanager
def logged(phase: str) -> Iterator[Live]:
    """Yields a Live that writes into metrics/PHASE and tells the trackers; dvc.yaml, git and network stay untouched."""
    # Imported by its name as a string, because no stage may depend on the trackers: they change nothing that a stage
    # writes (law 7).
    if not is_first_process():
        yield _Silent()
        return
    with (
        importlib.import_module("temper.tracking.hooks").following(phase) as listener,
        _Live(
            f"metrics/{phase}", resume=False, report=None, save_dvc_exp=False, dvcyaml=None, monitor_system=False
        ) as live,
    ):
        live.listener = listener
        yield live


class _Silent(Live):
    """A Live for all but the first of several processes that train together: it writes nothing."""

    def __init__(self) -> None:
        self._step = 0

    def log_metric(self, name: str, val: float, **options: bool) -> None:
        pass

    def next_step(self) -> None:
        pass


class _Live(Live):
    """A Live that also passes each figure to a listener: its name, value and step (the epoch's number)."""

    listener: Callable[[str, float, int], None]

    def log_metric(self, name: str, val: float, **options: bool) -> None:
        super().log_metric(name, val, **options)
        self.listener(name, val, self.step)


def write_outcome(phase: str, result: Result, **facts: float) -> None:
    """Writes metrics/PHASE/metrics.json: the outcome of the phase, each name with the phase's name in front."""
    kept = {
        "epoch": result.best_epoch,
        "epochs": len(result.history),
        "best_val_accuracy": result.best["val_accuracy"],
        "best_val_loss": result.best["val_loss"],
        "train_accuracy": result.history[-1]["accuracy"],
        "train_loss": result.history[-1]["loss"],
        **facts,
    }
    if not is_first_process():
        return
    with atomic_file(f"metrics/{phase}/metrics.json") as path:
        write_json(path, {f"{phase}_{name}": value for name, value in kept.items()})
