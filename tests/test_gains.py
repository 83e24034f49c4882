"""Whether a fine-tune gained anything, or only seems to on a few images."""

import numpy as np
import numpy.typing as npt
import pytest

from stages.fine_tune.gains import Gain, gain

Probabilities = npt.NDArray[np.float64]


def drawn(count: int, skill: float, seed: int, noise: float = 1.0) -> tuple[Probabilities, npt.NDArray[np.int64]]:
    """Probabilities of a model that sees the labels with some noise: 0 is chance, 3 is good."""
    labels = np.random.default_rng(0).integers(0, 4, count)
    logits = skill * np.eye(4)[labels] + noise * np.random.default_rng(seed).normal(size=(count, 4))
    return softmax(logits), labels


def softmax(logits: Probabilities) -> Probabilities:
    shares: Probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def test_a_better_model_gains_and_a_worse_one_loses() -> None:
    weak, labels = drawn(400, 1.0, seed=1)
    strong, _ = drawn(400, 3.0, seed=1)
    assert gain(weak, strong, labels).in_standard_errors > 5
    assert gain(strong, weak, labels).in_standard_errors < -5


def test_being_surer_of_the_same_answers_is_no_gain() -> None:
    """Twice the logits, which temperature scaling takes back."""
    before, labels = drawn(300, 2.0, seed=1)
    after = softmax(np.log(before) * 2)
    assert abs(gain(before, after, labels).in_standard_errors) < 0.5


def test_of_equal_models_the_gain_is_within_a_standard_error_as_often_as_it_should_be() -> None:
    found = []
    for seed in range(200):
        before, labels = drawn(150, 2.0, seed=2 * seed)
        found.append(gain(before, drawn(150, 2.0, seed=2 * seed + 1)[0], labels).in_standard_errors)
    assert 0.60 < np.mean(np.abs(found) < 1) < 0.76  # 0.68 of a normal distribution; 0.033 is its own standard error


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Gain(0.0, 0.0), 0.0),
        (Gain(0.1, 0.0), np.inf),
        (Gain(-0.1, 0.0), -np.inf),
        (Gain(0.3, np.inf), 0.0),
        (Gain(0.2, 0.1), 2.0),
    ],
)
def test_a_gain_in_standard_errors(found: Gain, expected: float) -> None:
    assert found.in_standard_errors == expected


def test_one_image_shows_no_gain() -> None:
    before, labels = drawn(1, 0.0, seed=1)
    assert gain(before, drawn(1, 9.0, seed=1)[0], labels).in_standard_errors == 0
