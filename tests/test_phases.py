"""Phases inside one process: one that is cut off goes on to the same bits (law 5), and none ends worse (law 13)."""

import json
from contextlib import chdir
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from temper.base.errors import TemperError
from temper.settings.training import Adam, AdamW, Cosine, EarlyStopping, Optimizer, Plateau, Schedule, Sgd
from temper.training.batches import Batches, one_hot, shuffled
from temper.training.phases import Phase, Result, fit, logged, write_outcome
from temper.training.unfinished import Unfinished

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(96, 6)).astype(np.float32)
LABELS = (INPUTS[:, 0] + 0.8 * RANDOM.normal(size=96) > 0).astype(np.int32)
SEED = 7


class Cut(Exception):
    """Stands for a kill."""


OPTIMIZERS: list[Optimizer] = [Adam(), AdamW(name="adamw"), Sgd(name="sgd")]
SCHEDULES: list[Schedule] = [Cosine(), Plateau(name="plateau", patience=1)]


def phase(
    optimizer: Optimizer, schedule: Schedule = SCHEDULES[0], lr: float = 0.05, counts_start: bool = False
) -> Phase:
    stopping = EarlyStopping(patience=4)
    return Phase(9, lr, optimizer, schedule, stopping, select="val_accuracy", counts_start=counts_start)


def fresh_model() -> keras.Model:
    """A model with two dropout layers and a BatchNorm, in a fresh state of Keras's random numbers."""
    keras.utils.set_random_seed(SEED)
    inputs = keras.Input((6,))
    x = keras.layers.Dropout(0.2)(inputs)
    x = keras.layers.BatchNormalization()(keras.layers.Dense(8, "relu")(x))
    x = keras.layers.Dropout(0.4)(x)
    return keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))


def train(
    folder: Path, how: Phase, cut_at: int | None = None, start: list[np.ndarray] | None = None
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
            return INPUTS[rows]

        order = shuffled(64, SEED, epoch)
        return Batches(read, one_hot(labels, 2), order, 16)

    validation = Batches(lambda rows: INPUTS[rows], one_hot(LABELS, 2), np.arange(64, 96), 32)
    folder.mkdir(exist_ok=True)
    with chdir(folder), logged("toy") as live:
        result = fit(model, how, training, validation, Unfinished(folder), live)
    return model, result


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda settings: settings.name)
@pytest.mark.parametrize(
    ("schedule", "counts_start"), [(SCHEDULES[0], False), (SCHEDULES[1], True)], ids=["cosine", "plateau"]
)
def test_a_phase_cut_off_twice_ends_in_the_same_bits(
    tmp_path: Path, optimizer: Optimizer, schedule: Schedule, counts_start: bool
) -> None:
    how = phase(optimizer, schedule, counts_start=counts_start)
    whole, expected = train(tmp_path / "whole", how)
    for cut_at in (1, 3):
        with pytest.raises(Exception) as cut:  # TensorFlow wraps it in an error of its own
            train(tmp_path / "cut", how, cut_at)
        assert "Cut" in f"{cut.type.__name__} {cut.value}"
    resumed, result = train(tmp_path / "cut", how)
    assert result == expected
    for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)
    curves = sorted((tmp_path / "whole/metrics/toy").rglob("*.tsv"))
    assert len(curves) == 5
    for curve in curves:
        again = tmp_path / "cut" / curve.relative_to(tmp_path / "whole")
        assert again.read_bytes() == curve.read_bytes()


def test_the_best_epoch_is_restored_not_the_last(tmp_path: Path) -> None:
    model, result = train(tmp_path / "phase", phase(Adam()))
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    loss, accuracy = model.evaluate(INPUTS[64:], LABELS[64:], verbose=0)
    best = result.history[result.best_epoch - 1]
    assert result.best == best
    assert accuracy == pytest.approx(best["val_accuracy"]) and loss == pytest.approx(best["val_loss"], rel=1e-5)
    assert best["val_accuracy"] == max(record["val_accuracy"] for record in result.history)


def same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("cut_at", [None, 2], ids=["whole", "cut off"])
def test_where_no_epoch_is_better_the_start_is_kept(tmp_path: Path, cut_at: int | None) -> None:
    """Law 13, also for a run that was killed."""
    good, _ = train(tmp_path / "good", phase(Adam()))
    start = good.get_weights()
    bad = phase(Adam(), counts_start=True)
    if cut_at is not None:
        with pytest.raises(Exception) as cut:  # TensorFlow wraps it in an error of its own
            train(tmp_path / "bad", bad, cut_at, start)
        assert "Cut" in f"{cut.type.__name__} {cut.value}"
    model, result = train(tmp_path / "bad", bad, start=start)
    assert result.best_epoch == 0 and same(model.get_weights(), start)
    assert len(result.history) == 1 + 4, "the patience counts epochs among themselves"
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
    with pytest.raises(TemperError, match="expected finite figures"):
        train(tmp_path / "phase", phase(Sgd(name="sgd"), lr=1e30))
