"""Phases inside one process: one that is cut off goes on to the same bits (law 5), and none ends worse (law 13)."""

import json
import os
import signal
from collections.abc import Callable
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from temper.base.errors import TemperError
from temper.settings.training import (
    Adam,
    AdamW,
    Constant,
    Cosine,
    CrossEntropy,
    EarlyStopping,
    Ema,
    Focal,
    Lamb,
    Lion,
    Optimizer,
    Piecewise,
    Plateau,
    RmsProp,
    Schedule,
    Sgd,
)
from temper.training import phases
from temper.training.batches import Batches, one_hot, shuffled
from temper.training.depth import computing_in
from temper.training.phases import Phase, Result, fit, logged, write_outcome
from temper.training.unfinished import Unfinished

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(96, 6)).astype(np.float32)
LABELS = (INPUTS[:, 0] + 0.8 * RANDOM.normal(size=96) > 0).astype(np.int32)
SEED = 7


class Cut(Exception):
    """Stands for a kill."""


def phase(optimizer: Optimizer, schedule: Schedule | None = None, lr: float = 0.05, **more: Any) -> Phase:
    return Phase(9, lr, optimizer, schedule or Cosine(by="epoch"), EarlyStopping(patience=4), "val_accuracy", **more)


# What a run that is killed must not lose (law 5). Each setting is in a row, and with others that could disturb it.
ADAM, EMA = Adam(), Ema(name="ema", decay=0.9)
WEIGHTS = np.array([0.5, 1.5], np.float32)
ROWS: dict[str, tuple[Phase, str]] = {
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
        phase(Lamb(name="lamb", global_clipnorm=0.5), scales=(0.5, 0.5, 0.8, 0.8, 1.0, 1.0)),
        "float32",
    ),
    "bfloat16": (phase(ADAM, Cosine()), "mixed_bfloat16"),
    "float16, accumulated, ema": (phase(ADAM, accumulate=2, average=EMA, scale_loss=True), "mixed_float16"),
}


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
    with chdir(folder), logged("toy") as live, computing_in(hidden, precision):
        result = fit(model, how, training, validation, Unfinished(folder), live)
    return model, result


def same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


Whole = Callable[[str], tuple[Path, keras.Model, Result]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A row's phase that nothing disturbed, and the folder of its curves; run once."""
    done: dict[str, tuple[Path, keras.Model, Result]] = {}

    def run(row: str) -> tuple[Path, keras.Model, Result]:
        if row not in done:
            folder = tmp_path_factory.mktemp("whole")
            how, precision = ROWS[row]
            done[row] = (folder, *train(folder, replace(how, epochs=5), precision=precision))
        return done[row]

    return run


@pytest.mark.parametrize("row", ROWS)
def test_a_phase_cut_off_ends_in_the_same_bits(tmp_path: Path, row: str, whole: Whole) -> None:
    how, precision = ROWS[row]
    how = replace(how, epochs=5)
    folder, model, expected = whole(row)
    with pytest.raises(Exception) as cut:  # TensorFlow wraps it in an error of its own
        train(tmp_path / "cut", how, 2, precision=precision)
    assert "Cut" in f"{cut.type.__name__} {cut.value}"
    resumed, result = train(tmp_path / "cut", how, precision=precision)
    assert result == expected and len(result.history) > 3
    assert same(resumed.get_weights(), model.get_weights())
    curves = sorted((folder / "metrics/toy").rglob("*.tsv"))
    assert len(curves) == 5
    for curve in curves:
        again = tmp_path / "cut" / curve.relative_to(folder)
        assert again.read_bytes() == curve.read_bytes()


def test_the_rows_are_all_different_phases(whole: Whole) -> None:
    """Each setting does something: no two rows end in the same figures."""
    assert len({tuple(whole(row)[2].history[-1].values()) for row in ROWS}) == len(ROWS)


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
