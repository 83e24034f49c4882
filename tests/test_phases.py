"""Phases inside one process: one that is cut off goes on to the same bits (law 5), and none ends worse (law 13)."""

import json
import os
import signal
from collections.abc import Callable
from contextlib import chdir
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from stages.fine_tune.depth import computing_in
from stages.fine_tune.opening import openings_due
from temper.base.errors import TemperError
from temper.batches import Batches, one_hot, shuffled
from temper.settings.fine_tune import Every, OnPlateau
from temper.settings.training import (
    Adam,
    AdamW,
    Average,
    Constant,
    Cosine,
    CrossEntropy,
    EarlyStopping,
    Ema,
    Focal,
    Lamb,
    Lion,
    NoAverage,
    Optimizer,
    Piecewise,
    Plateau,
    RmsProp,
    Schedule,
    Sgd,
)
from temper.training import phases
from temper.training.phases import Gradual, Phase, Result, fit, logged, write_outcome
from temper.training.unfinished import Unfinished

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(96, 6)).astype(np.float32)
LABELS = (INPUTS[:, 0] + 0.8 * RANDOM.normal(size=96) > 0).astype(np.int32)
SEED = 7


class Cut(Exception):
    """Stands for a kill."""


def phase(optimizer: Optimizer, schedule: Schedule | None = None, lr: float = 0.05, **more: Any) -> Phase:
    return Phase(9, lr, optimizer, schedule or Cosine(by="epoch"), EarlyStopping(patience=4), "val_accuracy", **more)


def by_order(model: keras.Model) -> tuple[float, ...]:
    """A rate of its own for each variable that trains."""
    return tuple(np.linspace(0.5, 1, len(model.trainable_variables)).tolist())


# What a run that is killed must not lose (law 5). Each setting is in a row, and with others that could disturb it.
ADAM, EMA = Adam(), Ema(name="ema", decay=0.9)
WEIGHTS = np.array([0.5, 1.5], np.float32)
# Where more opens, the second item of the pair is how; what opens is `gradual`'s.
ROWS: dict[str, tuple[Phase, str] | tuple[Phase, str, Every | OnPlateau]] = {
    "cosine by epochs": (phase(ADAM), "float32"),
    "plateau, counted start": (phase(ADAM, Plateau(name="plateau", patience=1), counts_start=True), "float32"),
    "cosine by steps, warm-up": (phase(ADAM, Cosine(warm_up=1.5)), "float32"),
    "adamw, ema, smoothing": (
        phase(AdamW(name="adamw"), average=EMA, loss=CrossEntropy(label_smoothing=0.1), counts_start=True),
        "float32",
    ),
    "sgd, piecewise, focal": (
        phase(
            Sgd(name="sgd", nesterov=True, clipvalue=0.1),
            Piecewise(name="piecewise", epochs=[2], factors=[0.1]),
            loss=Focal(name="focal"),
        ),
        "float32",
    ),
    "rmsprop, class weights, clipnorm": (
        phase(RmsProp(name="rmsprop", clipnorm=0.5), class_weights=WEIGHTS, lr=0.01),
        "float32",
    ),
    "lion, accumulated, ema": (phase(Lion(name="lion"), Cosine(), lr=0.01, accumulate=2, average=EMA), "float32"),
    "lamb, rates by depth, global clipnorm": (
        phase(Lamb(name="lamb", global_clipnorm=0.5), scales=lambda model: (0.5, 0.5, 0.8, 0.8, 1.0, 1.0)),
        "float32",
    ),
    "bfloat16": (phase(ADAM, Cosine()), "mixed_bfloat16"),
    "float16, accumulated, ema": (phase(ADAM, accumulate=2, average=EMA, scale_loss=True), "mixed_float16"),
    "opens every epoch, adamw, ema, rates by depth": (
        phase(AdamW(name="adamw"), Cosine(warm_up=1.5), lr=0.2, average=EMA, scales=by_order),
        "float32",
        Every(name="every", epochs=1),
    ),
    "opens on a plateau, float16, accumulated, ema": (
        phase(ADAM, lr=0.2, accumulate=2, average=EMA, scale_loss=True),
        "mixed_float16",
        OnPlateau(name="plateau", patience=1, min_delta=0.3),
    ),
}


def gradual(model: keras.Model, further: Every | OnPlateau, parts: int) -> Gradual:
    """Opens the output at first, then the norm too, then all of it; or, as one part, all of it each time.

    It leaves the model open as at first.
    """
    dense, norm, output = (layer for layer in model.layers if layer.weights)

    def opened(count: int) -> keras.Model:
        output.trainable, norm.trainable, dense.trainable = True, count > 0 or parts == 1, count > 1 or parts == 1
        return model

    opened(0)
    return Gradual(partial(openings_due, further, "val_accuracy"), opened, ("output", "norm", "dense"))


def fresh_model() -> keras.Model:
    """A model with two dropout layers and a BatchNorm, in a fresh state of Keras's random numbers."""
    keras.utils.set_random_seed(SEED)
    inputs = keras.Input((6,))
    x = keras.layers.Dropout(0.2)(inputs)
    x = keras.layers.BatchNormalization()(keras.layers.Dense(8, "relu")(x))
    x = keras.layers.Dropout(0.4)(x)
    return keras.Model(inputs, keras.layers.Dense(2, "softmax", dtype="float32")(x))


def train(
    folder: Path,
    how: Phase,
    cut_at: int | None = None,
    *,
    interrupt_at: int | None = None,
    start: list[np.ndarray] | None = None,
    precision: str = "float32",
    further: Every | OnPlateau | None = None,
    parts: int = 3,
) -> tuple[keras.Model, Result]:
    """A phase of a fresh model; or of one with the weights `start`, which only gets worse: it learns wrong labels."""
    model = fresh_model()
    labels = LABELS if start is None else 1 - LABELS
    if start is not None:
        model.set_weights(start)

    def training(epoch: int) -> Batches:
        def read(rows: np.ndarray) -> Any:
            if epoch == cut_at and rows[0] != order[0]:
                raise Cut  # in the middle of the epoch
            if epoch == interrupt_at and rows[0] == order[48]:  # Keras reads the first two batches twice
                os.kill(os.getpid(), signal.SIGINT)
            return INPUTS[rows]

        order = shuffled(64, SEED, epoch)
        return Batches(read, one_hot(labels, 2), order, 24)  # 24, 24 and 16: the batches differ in length

    validation = Batches(lambda rows: INPUTS[rows], one_hot(LABELS, 2), np.arange(64, 96), 32)
    folder.mkdir(exist_ok=True)
    hidden = keras.Model(model.input, model.layers[-2].output)  # all but the softmax
    how = how if further is None else replace(how, gradual=gradual(model, further, parts))
    with chdir(folder), logged("toy") as live, computing_in(hidden, precision):
        result = fit(model, how, training, validation, Unfinished(folder), live)
    return model, result


def same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


def train_row(folder: Path, row: str, cut_at: int | None = None) -> tuple[keras.Model, Result]:
    """Five epochs of a row of ROWS."""
    how, precision, *further = ROWS[row]
    return train(folder, replace(how, epochs=5), cut_at, precision=precision, further=further[0] if further else None)


Whole = Callable[[str], tuple[Path, keras.Model, Result]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A row's phase that nothing disturbed, and the folder of its curves; run once."""
    done: dict[str, tuple[Path, keras.Model, Result]] = {}

    def run(row: str) -> tuple[Path, keras.Model, Result]:
        if row not in done:
            folder = tmp_path_factory.mktemp("whole")
            done[row] = (folder, *train_row(folder, row))
        return done[row]

    return run


@pytest.mark.parametrize("row", ROWS)
def test_a_phase_cut_off_ends_in_the_same_bits(tmp_path: Path, row: str, whole: Whole) -> None:
    folder, model, expected = whole(row)
    with pytest.raises(Exception) as cut:  # TensorFlow wraps it in an error of its own
        train_row(tmp_path / "cut", row, 2)
    assert "Cut" in f"{cut.type.__name__} {cut.value}"
    resumed, result = train_row(tmp_path / "cut", row)
    assert result == expected and len(result.history) > 3
    assert same(resumed.get_weights(), model.get_weights()) and same(result.last, expected.last)
    curves = sorted((folder / "metrics/toy").rglob("*.tsv"))
    assert len(curves) == (6 if "opens" in row else 5)
    for curve in curves:
        again = tmp_path / "cut" / curve.relative_to(folder)
        assert again.read_bytes() == curve.read_bytes()


@pytest.mark.parametrize("average", [NoAverage(), EMA])
def test_a_phase_that_was_over_gives_its_last_weights_again(tmp_path: Path, average: Average) -> None:
    """Killed after its last epoch, before its model was saved; the last weights are not those that are kept."""
    how = phase(Adam(), lr=0.5, average=average)
    _, expected = train(tmp_path / "phase", how)
    model, again = train(tmp_path / "phase", how)
    assert 0 < expected.best_epoch < len(expected.history), "or this test shows nothing"
    assert again == expected and same(again.last, expected.last)
    phases.assign(model.variables, again.last)
    model.compile(loss="categorical_crossentropy")
    figures = model.evaluate(INPUTS[64:], one_hot(LABELS, 2)(np.arange(64, 96)), verbose=0, return_dict=True)
    assert figures["loss"] == pytest.approx(expected.history[-1]["val_loss"], rel=1e-5)


def test_the_rows_are_all_different_phases(whole: Whole) -> None:
    """Each setting does something: no two rows end in the same figures."""
    assert len({tuple(whole(row)[2].history[-1].values()) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("opens every epoch, adamw, ema, rates by depth", [18, 34, 90, 90, 90]),
        ("opens on a plateau, float16, accumulated, ema", [18, 18, 34, 90, 90]),
    ],
)
def test_what_is_open_in_each_epoch_is_as_said(row: str, expected: list[int], whole: Whole) -> None:
    """The output alone has 18 numbers, with the norm 34, the whole model 90."""
    assert [record["trainable_parameters"] for record in whole(row)[2].history] == expected


def test_an_opening_that_opens_nothing_changes_no_bit(tmp_path: Path) -> None:
    """What the optimizer remembers goes on, though it is built and compiled anew: slots, averages, steps, the rate."""
    how = phase(ADAM, Cosine(warm_up=1.5), lr=0.2, average=EMA, accumulate=2)
    expected, _ = train(tmp_path / "plain", replace(how, epochs=4))
    model, result = train(tmp_path / "opened", replace(how, epochs=4), further=Every(name="every"), parts=1)
    assert {record["trainable_parameters"] for record in result.history} == {90}
    assert same(model.get_weights(), expected.get_weights())


def test_the_best_epoch_is_restored_not_the_last(tmp_path: Path) -> None:
    model, result = train(tmp_path / "phase", phase(Adam()))
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    loss, accuracy = model.evaluate(INPUTS[64:], LABELS[64:], verbose=0)
    best = result.history[result.best_epoch - 1]
    assert result.best == best
    assert accuracy == pytest.approx(best["val_accuracy"]) and loss == pytest.approx(best["val_loss"], rel=1e-5)
    assert best["val_accuracy"] == max(record["val_accuracy"] for record in result.history)


@pytest.mark.parametrize("cut_at", [None, 2], ids=["whole", "cut off"])
def test_where_no_epoch_is_better_the_start_is_kept(tmp_path: Path, cut_at: int | None) -> None:
    """Law 13, also for a run that was killed."""
    good, _ = train(tmp_path / "good", phase(Adam()))
    start = good.get_weights()
    bad = phase(Adam(), counts_start=True)
    if cut_at is not None:
        with pytest.raises(Exception) as cut:  # TensorFlow wraps it in an error of its own
            train(tmp_path / "bad", bad, cut_at, start=start)
        assert "Cut" in f"{cut.type.__name__} {cut.value}"
    model, result = train(tmp_path / "bad", bad, start=start)
    assert result.best_epoch == 0 and same(model.get_weights(), start)
    assert len(result.history) == 4, "the start counts, so no epoch was a gain"
    assert all(record["val_accuracy"] < result.best["val_accuracy"] for record in result.history)
    curve = (tmp_path / "bad/metrics/toy/plots/metrics/validation/accuracy.tsv").read_text(encoding="utf-8")
    shown = [float(line.split("\t")[1]) for line in curve.splitlines()[1:]]
    expected = [result.best["val_accuracy"], *(record["val_accuracy"] for record in result.history)]
    assert shown == pytest.approx(expected)


def test_where_the_start_does_not_count_an_epoch_is_kept(tmp_path: Path) -> None:
    """The warm-up's new head starts from random weights, which are no model to ship."""
    good, _ = train(tmp_path / "good", phase(Adam()))
    model, result = train(tmp_path / "bad", phase(Adam()), start=good.get_weights())
    assert result.best_epoch > 0 and not same(model.get_weights(), good.get_weights())


def test_a_better_epoch_is_kept_over_the_start(tmp_path: Path) -> None:
    _, result = train(tmp_path / "phase", phase(Adam(), counts_start=True))
    assert result.best_epoch > 0 and result.best == result.history[result.best_epoch - 1]


def test_the_outcome_says_what_was_kept_under_names_of_the_phase(tmp_path: Path) -> None:
    """Two phases beside each other in `dvc metrics show`: no name means two things."""
    history = [
        {"accuracy": 0.5, "loss": 1.0, "val_accuracy": 0.75, "val_loss": 0.5, "learning_rate": 0.1},
        {"accuracy": 0.6, "loss": 0.9, "val_accuracy": 0.7, "val_loss": 0.6, "learning_rate": 0.1},
    ]
    with chdir(tmp_path):
        write_outcome("toy", Result(history, 1, history[0]), trainable_parameters=12)
    assert json.loads((tmp_path / "metrics/toy/metrics.json").read_text(encoding="utf-8")) == {
        "toy_epoch": 1,
        "toy_epochs": 2,
        "toy_best_val_accuracy": 0.75,
        "toy_best_val_loss": 0.5,
        "toy_train_accuracy": 0.6,
        "toy_train_loss": 0.9,
        "toy_trainable_parameters": 12,
    }


def test_dropout_differs_from_epoch_to_epoch(tmp_path: Path) -> None:
    _, result = train(tmp_path / "phase", phase(Sgd(name="sgd")))
    assert len({record["loss"] for record in result.history}) == len(result.history)


def test_a_loss_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TemperError, match=r"epoch 1, .* 1 to 3 of 3: expected a finite loss.* rate 1e\+30; lower"):
        train(tmp_path / "phase", phase(Sgd(name="sgd"), lr=1e30))


def test_the_step_that_ended_in_a_loss_that_is_not_finite_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rate jumps in the third epoch; after its first step nothing is finite. What was saved before stays."""
    monkeypatch.setattr(phases, "STEPS_AT_ONCE", 1)
    jumps = Piecewise.model_construct(name="piecewise", epochs=[2], factors=[1e33], warm_up=0.0)  # refused otherwise
    with pytest.raises(TemperError, match=r"epoch 3, step [23] of 3: .* at the rate 1e\+30; lower lr"):
        train(tmp_path / "phase", phase(Sgd(name="sgd", momentum=0.0), jumps, lr=1e-3))
    state = Unfinished(tmp_path / "phase").load()
    assert state is not None and len(state.history) == 2


def test_an_interrupted_phase_keeps_its_best_epoch_if_asked(tmp_path: Path) -> None:
    """Ctrl-C in the third epoch: it does not count, and everything is as it was after the second."""
    how = phase(Adam(), Constant(), counts_start=True, keep_on_interrupt=True)
    before = signal.getsignal(signal.SIGINT)
    model, result = train(tmp_path / "phase", how, interrupt_at=2)
    assert signal.getsignal(signal.SIGINT) is before
    two, expected = train(tmp_path / "two", replace(how, epochs=2))
    assert result == expected and same(model.get_weights(), two.get_weights())


@pytest.mark.parametrize(("keep", "at", "kept"), [(False, 2, 2), (True, 0, 0)], ids=["resume", "no epoch is over"])
def test_an_interrupted_phase_waits_for_the_next_run(tmp_path: Path, keep: bool, at: int, kept: int) -> None:
    how = phase(Adam(), Constant(), counts_start=True, keep_on_interrupt=keep)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "phase", how, interrupt_at=at)
    state = Unfinished(tmp_path / "phase").load()
    assert (len(state.history) if state else 0) == kept
    resumed, result = train(tmp_path / "phase", replace(how, epochs=4))
    whole, expected = train(tmp_path / "whole", replace(how, epochs=4))
    assert result == expected and same(resumed.get_weights(), whole.get_weights())


def test_the_validation_loss_is_plain_cross_entropy_even_with_a_penalty_of_weights(tmp_path: Path) -> None:
    keras.utils.set_random_seed(SEED)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, "softmax", kernel_regularizer="l2")])
    validation = Batches(lambda rows: INPUTS[rows], one_hot(LABELS, 2), np.arange(64, 96), 32)
    how = replace(phase(Adam()), epochs=1)
    with chdir(tmp_path), logged("toy") as live:
        result = fit(model, how, lambda epoch: validation, validation, Unfinished(tmp_path), live)
    right = model.predict(INPUTS[64:], verbose=0)[np.arange(32), LABELS[64:]]
    assert result.best["val_loss"] == pytest.approx(-np.log(right).mean(), rel=1e-5)
