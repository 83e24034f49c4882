"""Which weights a fine-tune keeps, by the gains that it shows on validation."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from stages.fine_tune.__main__ import Material, in_words, keep_what_gains, outcome
from stages.fine_tune.gains import gain
from stages.fine_tune.stepping_back import HALFWAY, halfway, step_back
from temper.batches import Batches, one_hot, predict
from temper.training.phases import Result, arrays, assign
from tests.toys.classifier import alive, classifier

Floats = npt.NDArray[np.float64]
COUNT, CLASSES = 60, 4


def softmax(logits: Floats) -> Floats:
    shares: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def drawn(skill: float, seed: int, noise: float = 1.0, count: int = COUNT) -> Floats:
    """Probabilities of a model that sees the labels with some noise: 0 is chance, 3 is good."""
    logits = skill * np.eye(CLASSES)[labels(count)] + noise * np.random.default_rng(seed).normal(size=(count, CLASSES))
    return softmax(logits)


def labels(count: int = COUNT) -> npt.NDArray[np.int64]:
    return np.random.default_rng(99).integers(0, CLASSES, count)


def given(probabilities: Floats, asked: list[str]) -> Callable[[], Floats]:
    def predictions() -> Floats:
        asked.append("halfway")
        return probabilities

    return predictions


BEFORE, MUCH_BETTER, A_BIT_BETTER, WORSE = drawn(1.5, 0), drawn(5, 1), drawn(1.8, 5), drawn(-1, 3)


@pytest.mark.parametrize(
    ("best", "half", "margin", "share"),
    [
        (MUCH_BETTER, WORSE, 2.0, 1),
        (MUCH_BETTER, WORSE, 0.0, 1),
        (MUCH_BETTER, A_BIT_BETTER, 1e6, HALFWAY),
        (MUCH_BETTER, WORSE, 1e6, 0),
        (A_BIT_BETTER, MUCH_BETTER, 0.0, 1),
        (A_BIT_BETTER, MUCH_BETTER, 2.0, HALFWAY),
        (A_BIT_BETTER, WORSE, 2.0, 0),
        (WORSE, A_BIT_BETTER, 0.0, HALFWAY),
        (WORSE, WORSE, 0.0, 0),
        (None, A_BIT_BETTER, 0.0, HALFWAY),
        (None, WORSE, 0.0, 0),
    ],
)
def test_the_best_epoch_needs_the_margin_and_halfway_any_gain(
    best: Floats | None, half: Floats, margin: float, share: float
) -> None:
    assert 0 < gain(BEFORE, A_BIT_BETTER, labels()).in_standard_errors < 2, "or the table shows less than it seems to"
    asked: list[str] = []
    kept = step_back(BEFORE, best, given(half, asked), labels(), margin)
    assert kept.share == share and asked == ([] if share == 1 else ["halfway"])
    expected = {1: best, HALFWAY: half, 0: BEFORE}[share]
    assert expected is not None and np.array_equal(kept.probabilities, expected)
    assert kept.gain == (gain(BEFORE, expected, labels()) if share else None)
    assert kept.best == (None if best is None else gain(BEFORE, best, labels()))


@pytest.mark.parametrize("margin", [0.0, 2.0])
@pytest.mark.parametrize("skill", [-3.0, 5.0])
def test_one_image_shows_nothing(margin: float, skill: float) -> None:
    """Except where a margin of 0 says that any gain is enough."""
    before, after = drawn(1.5, 0, count=1), drawn(skill, 1, count=1)
    better = gain(before, after, labels(1)).mean > 0
    kept = step_back(before, after, given(after, []), labels(1), margin)
    assert kept.share == (1 if better and margin == 0 else 0) and better == (skill > 0)


def test_weights_that_are_equal_keep_their_bits() -> None:
    """Frozen layers stay what they were; the states of random generators are those of the end."""
    generator = np.random.default_rng(0)
    frozen = np.concatenate([generator.normal(size=1000), [-0.0, np.inf, -np.inf]]).astype(np.float32)
    start = [frozen, generator.normal(size=(3, 4)).astype(np.float32), np.float32(1), np.array([1, 2], np.uint32)]
    arrays_of_start = [np.array(one) for one in start]
    end = [frozen.copy(), arrays_of_start[1] + np.float32(1), np.array(3, np.float32), np.array([7, 8], np.uint32)]
    weights = halfway(arrays_of_start, end)
    assert weights[0].tobytes() == frozen.tobytes()
    assert np.allclose(weights[1], arrays_of_start[1] + 0.5, atol=1e-6) and weights[2].tolist() == 2
    assert [one.shape for one in weights] == [one.shape for one in end]
    assert [one.dtype for one in weights] == [one.dtype for one in end]
    assert weights[3].tolist() == [7, 8]


@pytest.fixture
def overshot() -> tuple[Material, Result, list[npt.NDArray[Any]]]:
    """A model whose head went twice as far as was good for it, the result of its phase, and its weights before."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (COUNT, 32, 32, 3)).astype(np.uint8)
    model = classifier()
    alive(model, pixels)
    start = arrays(model.variables)
    last = model.get_layer("head").get_layer("probabilities")
    kernel, bias = last.get_weights()
    last.set_weights([kernel + np.std(kernel) * generator.normal(size=kernel.shape), bias])
    end = arrays(model.variables)
    images = Batches(lambda rows: pixels[rows], None, np.arange(COUNT), 16)
    assign(model.variables, halfway(start, end))
    answers = predict(model, images).argmax(axis=1).astype(np.int32)
    assign(model.variables, end)
    validation = Batches(lambda rows: pixels[rows], one_hot(answers, 3), np.arange(COUNT), 16)
    record = {"accuracy": 0.9, "loss": 0.1, "val_accuracy": 0.8, "val_loss": 0.3}
    result = Result([record, record], 1, record, {"val_accuracy": 0.7, "val_loss": 0.4}, last=end)
    return Material(model, lambda _: validation, validation, answers, answers), result, start


def weights_of(model: keras.Model) -> list[bytes]:
    return [one.tobytes() for one in arrays(model.variables)]


def test_the_weights_of_the_model_are_those_that_are_kept(
    overshot: tuple[Material, Result, list[npt.NDArray[Any]]],
) -> None:
    """Halfway, where the labels come from, the gain is largest; beyond it there is none."""
    of, result, start = overshot
    model = of.model
    assign(model.variables, start)
    before = predict(model, of.validation)

    def kept_of(weights: list[npt.NDArray[Any]], how: Result, margin: float) -> tuple[Any, Result, str]:
        """Of a phase whose best and last epoch have these weights: what is kept, how it went, and what is said."""
        assign(model.variables, weights)
        kept = keep_what_gains(of, model.variables, start, before, replace(how, last=weights), margin)
        then = outcome(how, kept, of.held_out)
        return kept, then, in_words(then, kept, margin)

    kept, then, said = kept_of(result.last, result, 1e6)
    assert kept.share == HALFWAY and kept.gain.in_standard_errors > max(0, kept.best.in_standard_errors)
    assert weights_of(model) == [one.tobytes() for one in halfway(start, result.last)]
    model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    figures = model.evaluate(of.validation, return_dict=True, verbose=0)
    assert then.best["val_loss"] == pytest.approx(figures["loss"], rel=1e-4)
    assert then.best["val_accuracy"] == pytest.approx(figures["accuracy"])
    assert (then.best_epoch, then.refused) == (2, 1), "the last epoch, after the first looked best"
    assert re.search("gain of epoch 1 over .*asks for 1e.06: the weights halfway to the last epoch.* are kept", said)

    kept, then, said = kept_of(result.last, replace(result, best_epoch=0, best={"val_accuracy": 0.7}), 2)
    assert kept.share == HALFWAY and kept.best is None and then.best_epoch == 2
    assert said.startswith("no epoch was better on validation than the warm-up: the weights halfway")

    worse = [
        2 * first - last if first.dtype.kind == "f" else last for first, last in zip(start, result.last, strict=True)
    ]
    kept, then, said = kept_of(worse, result, 2)
    assert kept.share == 0 and np.array_equal(kept.probabilities, before)
    assert weights_of(model) == [one.tobytes() for one in start]
    assert (then.best_epoch, then.refused, then.best["val_accuracy"]) == (0, 1, 0.7)
    assert re.search(
        "and the weights halfway .* gain nothing: the warm-up's are kept, validation accuracy 0.7000$", said
    )
