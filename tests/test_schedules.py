"""What a phase decides between epochs: equal to Keras's own callbacks, but computed from the history alone."""

from typing import Any

import keras
import numpy as np
import pytest

from temper.settings.training import Constant, Cosine, EarlyStopping, Piecewise, Plateau, Schedule, Select
from temper.training.schedules import Record, beats, best_epoch, rate, step_factor, stopped


def history(losses: list[float], accuracies: list[float] | None = None) -> list[Record]:
    accuracies = accuracies or [0.0] * len(losses)
    return [{"val_loss": loss, "val_accuracy": top} for loss, top in zip(losses, accuracies, strict=True)]


def test_constant() -> None:
    assert [rate(Constant(name="constant"), 0.1, 3, history([1] * n)) for n in range(3)] == [0.1] * 3


def test_piecewise_as_the_stanford_cars_project_had_it() -> None:
    """0.001 to epoch 7, 0.0005 to 8, 0.00005 to 16, then 0.00001."""
    schedule = Piecewise(name="piecewise", epochs=[7, 8, 16], factors=[0.5, 0.05, 0.01])
    rates = [rate(schedule, 1e-3, 20, history([1] * epoch)) for epoch in range(20)]
    assert rates == pytest.approx([1e-3] * 7 + [5e-4] + [5e-5] * 8 + [1e-5] * 4)


def test_cosine_by_epochs_falls_from_lr_towards_its_end() -> None:
    schedule = Cosine(name="cosine", end=0.1, by="epoch")
    rates = [rate(schedule, 1.0, 10, history([1] * epoch)) for epoch in range(10)]
    assert rates[0] == 1 and rates[5] == pytest.approx(0.55) and 0.1 < rates[-1] < 0.15
    assert rates == sorted(rates, reverse=True)


def keras_rates(schedule: Plateau, lr: float, losses: list[float]) -> list[float]:
    """The rates of ReduceLROnPlateau after each epoch."""
    optimizer = keras.optimizers.SGD(lr)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    callback = keras.callbacks.ReduceLROnPlateau(
        monitor="val_loss",
        factor=schedule.factor,
        patience=schedule.patience,
        min_delta=schedule.min_delta,
        cooldown=schedule.cooldown,
        min_lr=schedule.min_lr,
    )
    callback.set_model(model)
    callback.on_train_begin()
    rates = []
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        rates.append(float(optimizer.learning_rate))
    return rates


@pytest.mark.parametrize(
    "settings",
    [
        {"patience": 1},
        {"patience": 2, "factor": 0.1},
        {"patience": 2, "cooldown": 3},
        {"patience": 1, "cooldown": 1, "min_lr": 0.01},
        {"patience": 3, "min_delta": 0.2},
    ],
    ids=str,
)
def test_plateau_is_that_of_keras(settings: dict[str, Any]) -> None:
    schedule = Plateau.model_validate({"name": "plateau", **settings})
    for seed in range(10):
        losses = [round(float(loss), 2) for loss in np.random.default_rng(seed).uniform(0, 1, 30)]
        ours = [rate(schedule, 0.1, 99, history(losses[:epoch])) for epoch in range(1, 31)]
        assert ours == pytest.approx(keras_rates(schedule, 0.1, losses), rel=1e-5)


def rates_of_steps(schedule: Schedule, epochs: int, batches: int) -> list[float]:
    """The rate of every step of a phase whose lr is 1."""
    factor = step_factor(schedule, epochs, batches)
    assert factor is not None
    factors = np.asarray(keras.ops.convert_to_numpy(factor(np.arange(epochs * batches)))).reshape(epochs, batches)
    rates = [rate(schedule, 1.0, epochs, history([1] * epoch)) for epoch in range(epochs)]
    return [float(value) for value in (np.array(rates)[:, None] * factors).ravel()]


def test_cosine_by_steps_is_that_of_keras() -> None:
    theirs = keras.optimizers.schedules.CosineDecay(1.0, decay_steps=12, alpha=0.1)
    expected = [float(theirs(step)) for step in range(12)]
    assert rates_of_steps(Cosine(end=0.1), 3, 4) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Constant(warm_up=1), [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        (Constant(warm_up=0.5), [0.5, 1, 1, 1, 1, 1, 1, 1]),
        (Constant(warm_up=1.5), [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 1]),
        (Constant(warm_up=1e-3), [1.0] * 8),  # less than a step
        (Piecewise(name="piecewise", epochs=[1], factors=[0.5], warm_up=1), [0.25, 0.5, 0.75, 1, *[0.5] * 4]),
        (Plateau(name="plateau", warm_up=1), [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        (Cosine(by="epoch", warm_up=1), [0.25, 0.5, 0.75, 1, *[0.5] * 4]),
    ],
    ids=str,
)
def test_a_warm_up_rises_in_even_steps_to_the_rate_of_the_schedule(schedule: Schedule, rates: list[float]) -> None:
    assert rates_of_steps(schedule, 2, 4) == pytest.approx(rates)


def test_without_a_warm_up_no_step_is_special() -> None:
    for schedule in (Constant(), Cosine(by="epoch"), Plateau(name="plateau")):
        assert step_factor(schedule, 2, 4) is None


def keras_stop(stopping: EarlyStopping, accuracies: list[float]) -> int | None:
    """The epoch at whose end EarlyStopping stops."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.stop_training = False  # as `fit` does
    assert stopping.patience is not None
    callback = keras.callbacks.EarlyStopping("val_accuracy", stopping.min_delta, stopping.patience, mode="max")
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, top in enumerate(accuracies):
        callback.on_epoch_end(epoch, {"val_accuracy": top})
        if model.stop_training:
            return epoch
    return None


@pytest.mark.parametrize(("patience", "min_delta"), [(1, 0), (2, 0), (3, 0.1), (5, 0.02)])
def test_early_stopping_is_that_of_keras(patience: int, min_delta: float) -> None:
    stopping = EarlyStopping(patience=patience, min_delta=min_delta)
    for seed in range(20):
        tops = [round(float(top), 2) for top in np.random.default_rng(seed).uniform(0, 1, 15)]
        ours = next(
            (n - 1 for n in range(1, 16) if stopped(stopping, history([1] * n, tops[:n]), "val_accuracy")), None
        )
        assert ours == keras_stop(stopping, tops)


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_the_start_is_a_baseline_for_early_stopping(patience: int) -> None:
    stopping = EarlyStopping(patience=patience)
    start = {"val_loss": 1.0, "val_accuracy": 0.8}
    waits = []
    for seed in range(20):
        tops = [round(float(top), 2) for top in np.random.default_rng(seed).uniform(0, 1, 15)]
        records = history([1] * 15, tops)
        ours = next((n - 1 for n in range(1, 16) if stopped(stopping, records[:n], "val_accuracy", start)), None)
        without = next((n - 1 for n in range(1, 16) if stopped(stopping, records[:n], "val_accuracy")), None)
        # An epoch that does not beat the start is no gain, so a phase ends when no epoch of the last ones did.
        best, waited, expected = 0.8, 0, None
        for epoch, top in enumerate(tops):
            best, waited = (top, 0) if top > best else (best, waited + 1)
            if waited >= patience:
                expected = epoch
                break
        assert ours == expected
        waits.append(ours != without)
    assert any(waits)


def test_a_phase_has_its_least_epochs() -> None:
    worse = history([1.0, 2.0, 3.0, 4.0, 5.0])
    for least, end in ((0, 3), (2, 3), (4, 4)):
        stopping = EarlyStopping(patience=2, min_epochs=least)
        assert next(n for n in range(1, 6) if stopped(stopping, worse[:n])) == end


def test_without_patience_a_phase_never_stops() -> None:
    assert not stopped(EarlyStopping(patience=None), history([1.0] * 99))


@pytest.mark.parametrize(
    ("losses", "accuracies", "by_accuracy", "by_loss"),
    [
        ([1, 1, 1, 1], [0.1, 0.5, 0.5, 0.2], 1, 1),  # equal in both: the first
        ([0.58, 0.5, 0.41, 0.45], [0.9, 0.9, 0.9, 0.9], 2, 2),  # a small validation split: the loss still falls
        ([0.5, 0.3, 0.4], [0.9, 0.8, 0.9], 2, 1),
        ([0.3, 0.3, 0.3, 0.4], [0.7, 0.8, 0.8, 0.9], 3, 1),
        ([0.7], [0.0], 0, 0),
    ],
    ids=str,
)
def test_the_best_epoch(losses: list[float], accuracies: list[float], by_accuracy: int, by_loss: int) -> None:
    records = history(losses, accuracies)
    assert best_epoch(records, "val_accuracy") == by_accuracy
    assert best_epoch(records) == best_epoch(records, "val_loss") == by_loss


@pytest.mark.parametrize(
    ("loss", "accuracy", "by_accuracy", "by_loss"),
    [
        (0.5, 0.8, False, False),  # equal: the start is kept
        (0.4, 0.8, True, True),
        (0.5, 0.9, True, True),
        (0.6, 0.9, True, False),
        (0.4, 0.7, False, True),
        (0.6, 0.8, False, False),
        (0.5, 0.7, False, False),
    ],
)
def test_what_beats_the_start(loss: float, accuracy: float, by_accuracy: bool, by_loss: bool) -> None:
    start, record = history([0.5, loss], [0.8, accuracy])
    assert beats(record, start, "val_accuracy") == by_accuracy
    assert beats(record, start) == beats(record, start, "val_loss") == by_loss


@pytest.mark.parametrize("select", ["val_accuracy", "val_loss"])
def test_if_any_epoch_beats_the_start_the_best_one_does(select: Select) -> None:
    outcomes = set()
    for seed in range(200):
        figures = np.random.default_rng(seed).integers(0, 4, (2, 4)) / 4  # few values: many are equal
        start, *records = history(*figures.tolist())
        best = records[best_epoch(records, select)]
        assert beats(best, start, select) == any(beats(record, start, select) for record in records)
        assert not any(beats(record, best, select) for record in records)
        outcomes.add(beats(best, start, select))
    assert outcomes == {True, False}
