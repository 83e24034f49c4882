"""A phase of training: Keras's `fit`, one epoch at a time, exactly resumable."""

import gc
import importlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

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

# Steps that the backend runs without coming back to Python. It changes no result.
STEPS_AT_ONCE = 8
OPEN = "trainable_parameters"  # in the record of an epoch, where it changes
TRAINED = "trained_loss"  # the loss of images alone, where a batch is spread over devices


@dataclass(frozen=True)
class Gradual:
    """How more of a model opens to training between epochs (law 4: who opens it decides what stays frozen).

    Attributes:
        due: how many openings come before the epoch that follows some records, with those of the start where it counts.
        open: sets what trains after so many openings; the model to train then, of the same variables, uncompiled.
        places: from where on the model is open, in words: before any opening, after the first one, and so on.
    """

    due: Callable[[Sequence[schedules.Record], schedules.Record | None], int]
    open: Callable[[int], keras.Model]
    places: tuple[str, ...]

    def openings(self, history: Sequence[schedules.Record], start: schedules.Record | None) -> int:
        """As `due`, but not more than there are."""
        return min(self.due(history, start), len(self.places) - 1)


@dataclass(frozen=True)
class Phase:
    """How to train.

    Attributes:
        counts_start: whether the weights before the first epoch are kept where no epoch is better (law 13).
        class_weights: how much an image of each class counts; `None`: all the same.
        scales: what the rate is multiplied by for each trainable variable of the model; `None`: 1 for all.
        accumulate: batches whose gradients are averaged for one step.
        scale_loss: whether float16 gradients need it.
        keep_on_interrupt: whether Ctrl-C ends the phase with what it has; otherwise its state waits for the next run.
        gradual: how more opens; `None`: what is open at first stays all that is.
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
    """What a phase came to.

    Attributes:
        history: a record an epoch; the first epoch is number 1.
        best_epoch: the number of the epoch whose weights the model has now; 0: those from before the phase.
        best: the record of that epoch, of which `val_accuracy` and `val_loss` are there in any case.
        start: the record from before the phase, where it counts.
        refused: the number of an epoch that was better than the start, but not by enough; 0: none.
    """

    history: list[schedules.Record]
    best_epoch: int
    best: schedules.Record
    start: schedules.Record | None = None
    refused: int = 0

    def without_gain(self) -> "Result":
        """The same phase where its best epoch is not kept, but the weights from before it."""
        assert self.start is not None
        return Result(self.history, 0, self.start, self.start, refused=self.best_epoch)


def fit(
    model: keras.Model,
    phase: Phase,
    training: Callable[[int], keras.utils.PyDataset],
    validation: keras.utils.PyDataset,
    unfinished: Unfinished,
    live: Live,
) -> Result:
    """Trains a classifier and leaves it with the weights of its best epoch on validation.

    Every epoch's order and augmentation follow from the seed and the epoch's number; the rate, what is open and the end
    of the phase from the history; weights, the random states of dropout layers and the optimizer are saved after each
    epoch. A run that is killed and started again therefore ends in the same bits.

    Args:
        model: uncompiled, frozen as it should be trained at first; uncompiled again at the end.
        training: the batches of an epoch, by its number; as many in each epoch.
        live: what happened so far is logged again, for DVC has removed it.

    Raises:
        TemperError: the loss is not finite any more.
        KeyboardInterrupt: Ctrl-C, unless the phase keeps what it has and an epoch is over.
    """
    factor = schedules.step_factor(phase.schedule, phase.epochs, len(training(0)))
    trained = _Trained(model, phase, factor, validation)
    state = _continued(trained, unfinished) or _start(model, phase, validation)
    _log_so_far(live, state)
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
                if _best_epoch(phase, state) == len(state.history):
                    state.best = arrays(trained.variables)
            state.weights, state.optimizer = arrays(trained.variables), arrays(trained.model.optimizer.variables)
            unfinished.save(state)
            _log(live, record)
    if interrupts.asked and not state.history:
        print("no epoch is over, so there is nothing to keep; start again")
        raise KeyboardInterrupt
    assign(trained.variables, state.best)
    # Or what is saved of it, alone or as a part, would need our optimizer's class to be loaded:
    trained.model.compiled = False
    gc.collect()  # iterators in cycles: at the end of the process TensorFlow would complain of them
    best_epoch = _best_epoch(phase, state)
    best = state.history[best_epoch - 1] if best_epoch else state.start
    assert best is not None  # epoch 0 is the best only where it was measured
    return Result(state.history, best_epoch, best, state.start)


def try_steps(model: keras.Model, phase: Phase, batches: keras.utils.PyDataset) -> None:
    """Trains as a phase would, on a few batches, to see whether they fit into the memory."""
    _compile(model, phase, None)
    model.fit(batches, shuffle=False, verbose=0)


class _Trained:
    """A model while it trains: compiled, and compiled anew where more of it opens, for Keras fixes what trains then.

    Attributes:
        model: the one that trains now.
        variables: those of every model that the phase opens, always in the same order.
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
        """Sets what trains after so many openings; what the optimizer remembers is kept."""
        if self._phase.gradual is None or openings == self._openings:
            return
        before = self.model.optimizer
        self.model, self._openings = self._phase.gradual.open(openings), openings
        self._compile()
        optimizers.carry_over(before, self.model.optimizer)
        gc.collect()  # the compiled steps of before, which hold memory in cycles

    def open_what_is_due(self, state: State) -> None:
        """Opens what comes before the next epoch, and says so."""
        gradual, before = self._phase.gradual, self._openings
        if gradual is not None:
            self.open(gradual.openings(state.history, state.start))
            if self._openings > before:
                print(f"epoch {len(state.history) + 1}: opens from {gradual.places[self._openings]}", flush=True)

    def open_as_it_was(self, state: State) -> None:
        """Opens what was open in the last epoch, whose weights and optimizer the state has."""
        if self._phase.gradual is not None:
            self.open(self._phase.gradual.openings(state.history[:-1], state.start))

    def how_much_is_open(self) -> schedules.Record:
        """What the record of an epoch says of it; nothing where it never changes."""
        return {} if self._phase.gradual is None else {OPEN: float(trainable_parameters(self.model))}


def _compile(model: keras.Model, phase: Phase, factor: schedules.Factor | None) -> None:
    """Gives the model its loss, its optimizer, and what is measured.

    Validation is by cross-entropy whatever is trained by, so that epochs, phases and experiments can be compared.
    """
    spread = devices.spread().devices > 1
    decay = phase.average.decay if isinstance(phase.average, Ema) else None
    scales, grows = None if phase.scales is None else phase.scales(model), phase.gradual is not None
    extras = optimizers.Extras(factor, scales, decay, phase.accumulate, phase.scale_loss, grows)
    loss = losses.build(phase.loss, phase.class_weights)
    metrics = [keras.metrics.CategoricalAccuracy("accuracy")]
    if phase.loss != CrossEntropy() or phase.class_weights is not None or model.losses or spread:
        metrics.append(keras.metrics.CategoricalCrossentropy("cross_entropy"))
    if spread:  # Keras counts a batch's loss by its rows, those too that only fill it up
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
    """Lets Keras build what it builds when it sees its first batch.

    On JAX it takes that batch from the epoch's own, which then come in another order: the first process trains it last,
    and one that goes on after a kill does so in its own first epoch. Of TensorFlow nothing of this is known.
    """
    if keras.backend.backend() == "jax":
        model.test_on_batch(*validation[0])


def _continued(trained: _Trained, unfinished: Unfinished) -> State | None:
    """The saved state, with the model and its optimizer set to it; `None` where there is none that fits."""
    state = unfinished.load()
    if state is None:
        return None
    trained.open_as_it_was(state)
    if not _fits(trained, state):
        unfinished.put_aside("that of another model")
        trained.open(0)
        return None
    print(f"going on after {len(state.history)} epochs, saved by a run that did not end")
    assign(trained.variables, state.weights)
    assign(trained.model.optimizer.variables, state.optimizer)
    return state


def _fits(trained: _Trained, state: State) -> bool:
    """Whether a saved state has an array of the right shape for every variable of the model and of its optimizer."""
    expected = [[variable.shape for variable in of] for of in (trained.variables, trained.model.optimizer.variables)]
    received = [[array.shape for array in of] for of in (state.weights, state.optimizer)]
    return expected == received and bool(state.history) and len(state.best) == len(state.weights)


def _start(model: keras.Model, phase: Phase, validation: keras.utils.PyDataset) -> State:
    """The state before the first epoch; where the start counts, with its figures on validation."""
    if not phase.counts_start:
        return State([], [], [], [])
    return State([], [], [], arrays(model.variables), _validate(model, validation))


def _best_epoch(phase: Phase, state: State) -> int:
    """The number of the best epoch so far; 0 where none is better than the start, or none is over."""
    if not state.history:
        return 0
    best = schedules.best_epoch(state.history, phase.select)
    if state.start is not None and not schedules.beats(state.history[best], state.start, phase.select):
        return 0
    return best + 1


def _stopped(phase: Phase, state: State) -> bool:
    return schedules.stopped(phase.early_stopping, state.history, phase.select, state.start)


class Watch(keras.callbacks.Callback):
    """Looks at the steps of one epoch: ends it when its loss is not finite, or when the user asks.

    Attributes:
        highest_rate: of all steps so far.
    """

    def __init__(self, interrupts: Interrupts, factor: schedules.Factor | None) -> None:
        super().__init__()
        self._interrupts, self._factor = interrupts, factor
        self._finite = 0  # steps whose loss was looked at
        self.highest_rate = 0.0

    def begin(self, model: keras.Model, rate: float, epoch: int, batches: int) -> None:
        """Sets the rate of an epoch, before the factor of its steps, which the optimizer knows."""
        model.optimizer.learning_rate = rate
        self._epoch, self._batches = epoch, batches
        steps = np.arange(epoch * batches, (epoch + 1) * batches)
        factors = np.ones(1) if self._factor is None else keras.ops.convert_to_numpy(self._factor(steps))
        self._rates = rate * np.broadcast_to(factors, (batches,)).astype(float)
        self.highest_rate = float(self._rates.max())

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Called by Keras after `STEPS_AT_ONCE` steps, with the number of the last one, counted from 0."""
        done = min(batch + 1, self._batches)
        loss = float((logs or {})["loss"])  # the mean of the epoch so far: not finite once one step's is not
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
    """One epoch; the number of those that are over is its own number, counted from 0."""
    watch.begin(model, rate, epoch, len(batches))
    logs = model.fit(
        batches,
        initial_epoch=epoch,
        epochs=epoch + 1,
        shuffle=False,  # `training` decides the order
        callbacks=[watch],
        verbose=int(sys.stdout.isatty()),
    ).history
    return {"accuracy": float(logs["accuracy"][0]), "loss": float(logs.get(TRAINED, logs["loss"])[0])}


def _validate(model: keras.Model, validation: keras.utils.PyDataset) -> schedules.Record:
    """val_accuracy and val_loss, the mean cross-entropy, of the model as it is now."""
    figures = model.evaluate(validation, verbose=0, return_dict=True)
    loss = figures.get("cross_entropy", figures["loss"])
    return {"val_accuracy": float(figures["accuracy"]), "val_loss": float(loss)}


@contextmanager
def _averaged(model: keras.Model) -> Iterator[None]:
    """Within its block the model has the averages of its weights, where its optimizer keeps any.

    What does not train is not averaged: moving statistics of BatchNorm are averages already.
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
    """Copies of the values of variables."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables: list[keras.Variable], values: Arrays) -> None:
    """Sets variables to such values."""
    for variable, array in zip(variables, values, strict=True):
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
    """Logs an epoch under DVCLive's names: train/..., validation/..., the rate, and how much is open."""
    for name, value in record.items():
        if name in ("learning_rate", OPEN):
            live.log_metric(name, value)
        else:
            split = "validation" if name.startswith("val_") else "train"
            live.log_metric(f"{split}/{name.removeprefix('val_')}", value)
    live.next_step()


@contextmanager
def logged(phase: str) -> Iterator[Live]:
    """A Live that writes into metrics/PHASE and leaves dvc.yaml, git and the network alone; trackers follow it."""
    # Imported by name: trackers change nothing that a stage writes, so no stage depends on them (law 7).
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
    """Of a process that trains with others and writes nothing."""

    def __init__(self) -> None:
        self._step = 0

    def log_metric(self, name: str, val: float, **options: bool) -> None:
        pass

    def next_step(self) -> None:
        pass


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
    if not is_first_process():
        return
    with atomic_file(f"metrics/{phase}/metrics.json") as path:
        write_json(path, {f"{phase}_{name}": value for name, value in kept.items()})
