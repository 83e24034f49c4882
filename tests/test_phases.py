"""Law 5 inside one process: a phase that is cut off anywhere goes on to the same bits."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from temper.base.errors import TemperError
from temper.settings.training import Adam, AdamW, Cosine, EarlyStopping, Optimizer, Plateau, Schedule, Sgd
from temper.training.batches import Batches, shuffled
from temper.training.phases import Phase, Result, fit, open_live
from temper.training.unfinished import Unfinished

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(96, 6)).astype(np.float32)
LABELS = (INPUTS[:, 0] + 0.8 * RANDOM.normal(size=96) > 0).astype(np.int32)
SEED = 7


class Cut(Exception):
    """Stands for a kill."""


OPTIMIZERS: list[Optimizer] = [Adam(), AdamW(name="adamw"), Sgd(name="sgd")]
SCHEDULES: list[Schedule] = [Cosine(), Plateau(name="plateau", patience=1)]


def phase(optimizer: Optimizer, schedule: Schedule = SCHEDULES[0], lr: float = 0.05) -> Phase:
    return Phase(epochs=9, lr=lr, optimizer=optimizer, schedule=schedule, early_stopping=EarlyStopping(patience=4))


def train(folder: Path, how: Phase, cut_at: int | None = None) -> tuple[keras.Model, Result]:
    """A phase of a model with two dropout layers and a BatchNorm, in a fresh state of Keras's random numbers."""
    keras.utils.set_random_seed(SEED)
    inputs = keras.Input((6,))
    x = keras.layers.Dropout(0.2)(inputs)
    x = keras.layers.BatchNormalization()(keras.layers.Dense(8, "relu")(x))
    x = keras.layers.Dropout(0.4)(x)
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))

    def training(epoch: int) -> Batches:
        def read(rows: np.ndarray) -> Any:
            if epoch == cut_at and rows[0] != order[0]:
                raise Cut  # in the middle of the epoch
            return INPUTS[rows]

        order = shuffled(64, SEED, epoch)
        return Batches(read, LABELS, order, 16)

    validation = Batches(lambda rows: INPUTS[rows], LABELS, np.arange(64, 96), 32)
    folder.mkdir(exist_ok=True)
    with open_live(str(folder / "live")) as live:
        result = fit(model, how, training, validation, Unfinished(folder), live)
    return model, result


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda settings: settings.name)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda settings: settings.name)
def test_a_phase_cut_off_twice_ends_in_the_same_bits(tmp_path: Path, optimizer: Optimizer, schedule: Schedule) -> None:
    how = phase(optimizer, schedule)
    whole, expected = train(tmp_path / "whole", how)
    for cut_at in (1, 3):
        with pytest.raises(Exception) as cut:  # TensorFlow wraps it in an error of its own
            train(tmp_path / "cut", how, cut_at)
        assert "Cut" in f"{cut.type.__name__} {cut.value}"
    resumed, result = train(tmp_path / "cut", how)
    assert result == expected
    for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)
    curves = sorted((tmp_path / "whole/live").rglob("*.tsv"))
    assert len(curves) == 5
    for curve in curves:
        again = tmp_path / "cut" / curve.relative_to(tmp_path / "whole")
        assert again.read_bytes() == curve.read_bytes()


def test_the_best_epoch_is_restored_not_the_last(tmp_path: Path) -> None:
    model, result = train(tmp_path / "phase", phase(Adam()))
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    loss, accuracy = model.evaluate(INPUTS[64:], LABELS[64:], verbose=0)
    best = result.history[result.best_epoch]
    assert accuracy == pytest.approx(best["val_accuracy"]) and loss == pytest.approx(best["val_loss"], rel=1e-5)
    assert best["val_accuracy"] == max(record["val_accuracy"] for record in result.history)


def test_dropout_differs_from_epoch_to_epoch(tmp_path: Path) -> None:
    _, result = train(tmp_path / "phase", phase(Sgd(name="sgd")))
    assert len({record["loss"] for record in result.history}) == len(result.history)


def test_a_loss_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TemperError, match="expected finite figures"):
        train(tmp_path / "phase", phase(Sgd(name="sgd"), lr=1e30))
