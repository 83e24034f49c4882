"""How far from the warm-up's weights a fine-tune may go, by the gain that it shows on validation."""

import re

import keras
import numpy as np
import numpy.typing as npt
import pytest

from stages.fine_tune.__main__ import Material, in_words, keep_what_gains, outcome
from stages.fine_tune.gains import gain
from stages.fine_tune.stepping_back import HALFWAY, between, step_back
from temper.batches import Batches, one_hot, predict
from temper.training.phases import Result, arrays, assign
from tests.toys.classifier import alive, classifier

Floats = npt.NDArray[np.float64]
COUNT, CLASSES = 60, 4


def softmax(logits: Floats) -> Floats:
    shares: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


class Line:
    """A line of models whose logits are those between two models': the first is fair, the second has some skill."""

    def __init__(self, skill: float, noise: float = 2.0, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.labels = generator.integers(0, CLASSES, COUNT)
        true = np.eye(CLASSES)[self.labels]
        self.start = 1.5 * true + generator.normal(size=true.shape)
        self.end = skill * true + noise * generator.normal(size=true.shape)
        self.asked: list[float] = []

    def predictions(self, share: float) -> Floats:
        self.asked.append(share)
        return softmax(self.start + share * (self.end - self.start))

    def in_standard_errors(self, share: float) -> float:
        before, after = softmax(self.start), softmax(self.start + share * (self.end - self.start))
        return gain(before, after, self.labels).in_standard_errors


@pytest.mark.parametrize("skill", [-3.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 8.0])
@pytest.mark.parametrize("margin", [0.0, 1.0, 2.0, 4.0])
def test_all_of_the_way_needs_the_margin_and_half_of_it_any_gain(skill: float, margin: float) -> None:
    line = Line(skill)
    kept = step_back(line.predictions, softmax(line.start), line.labels, margin)
    half = HALFWAY if line.in_standard_errors(HALFWAY) > 0 else 0
    assert kept.share == (1 if line.in_standard_errors(1) >= margin else half)
    assert kept.whole.in_standard_errors == line.in_standard_errors(1)
    assert line.asked == ([1] if kept.share == 1 else [1, HALFWAY]), "no more than it needs"
    assert np.array_equal(kept.probabilities, line.predictions(kept.share))
    assert kept.gain.in_standard_errors == (line.in_standard_errors(kept.share) if kept.share else 0)


def test_of_a_better_fine_tune_all_is_kept_of_a_harmful_one_nothing_and_of_others_half() -> None:
    """Otherwise the table above would not have each of the three."""

    def share(skill: float, noise: float) -> float:
        line = Line(skill, noise)
        return step_back(line.predictions, softmax(line.start), line.labels, margin=2).share

    assert (share(8, 1), share(2.5, 2), share(-3, 1)) == (1, HALFWAY, 0)


def test_weights_that_are_equal_keep_their_bits() -> None:
    """Frozen layers stay what they were; the states of random generators are those of the end."""
    generator = np.random.default_rng(0)
    frozen = generator.normal(size=1000).astype(np.float32)
    start = [frozen, generator.normal(size=(3, 4)).astype(np.float32), np.array([1, 2], np.uint32)]
    end = [frozen.copy(), start[1] + np.float32(1), np.array([7, 8], np.uint32)]
    for share in (1, 0.75, HALFWAY):
        weights = between(start, end, share)
        assert weights[0].tobytes() == frozen.tobytes() and weights[0].dtype == weights[1].dtype == np.float32
        assert np.allclose(weights[1], start[1] + share, atol=1e-6)
        assert weights[2].tolist() == [7, 8] and weights[2].dtype == np.uint32
    assert [one.tobytes() for one in between(start, end, 1)] == [one.tobytes() for one in end]


def overshot() -> tuple[keras.Model, Material, list[npt.NDArray[np.float32]]]:
    """A classifier whose head went twice as far as was good for it; its validation images; its weights before."""
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
    assign(model.variables, between(start, end, 0.5))
    labels = predict(model, images).argmax(axis=1).astype(np.int32)
    assign(model.variables, end)
    validation = Batches(lambda rows: pixels[rows], one_hot(labels, 3), np.arange(COUNT), 16)
    return model, Material(model, lambda _: validation, validation, labels, labels), start


def test_the_weights_of_the_model_are_those_that_are_kept() -> None:
    """Halfway, where the labels come from, the gain is largest."""
    model, of, start = overshot()
    end = arrays(model.variables)
    assign(model.variables, start)
    before = predict(model, of.validation)

    def in_standard_errors(share: float) -> float:
        assign(model.variables, between(start, end, share))
        return gain(before, predict(model, of.validation), of.held_out).in_standard_errors

    whole = in_standard_errors(1)
    assert in_standard_errors(HALFWAY) > max(0, whole)
    assign(model.variables, end)
    margin = whole + 0.1
    kept = keep_what_gains(model, of, start, before, margin)
    assert kept.share == HALFWAY
    for variable, expected in zip(arrays(model.variables), between(start, end, kept.share), strict=True):
        assert variable.tobytes() == expected.tobytes()

    record = {"accuracy": 0.9, "loss": 0.1, "val_accuracy": 0.8, "val_loss": 0.3}
    result = outcome(Result([record], 1, record, {"val_accuracy": 0.7, "val_loss": 0.4}), kept, of.held_out)
    model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    figures = model.evaluate(of.validation, return_dict=True, verbose=0)
    assert result.best["val_loss"] == pytest.approx(figures["loss"], rel=1e-4)
    assert result.best["val_accuracy"] == pytest.approx(figures["accuracy"]) and result.best_epoch == 1
    said = f"the gain of epoch 1 over the warm-up is {whole:.2f} standard errors.* halfway between the two are kept"
    assert re.search(said, in_words(result, kept, margin))

    worse = [2 * first - last if first.dtype.kind == "f" else last for first, last in zip(start, end, strict=True)]
    assign(model.variables, worse)
    refused = keep_what_gains(model, of, start, before, margin=2)
    assert refused.share == 0 and np.array_equal(refused.probabilities, before)
    assert [one.tobytes() for one in arrays(model.variables)] == [one.tobytes() for one in start]
    result = outcome(Result([record], 1, record, {"val_accuracy": 0.7, "val_loss": 0.4}), refused, of.held_out)
    assert (result.best_epoch, result.refused, result.best["val_accuracy"]) == (0, 1, 0.7)
    assert in_words(result, refused, 2).endswith("the warm-up's weights are kept, validation accuracy 0.7000")
