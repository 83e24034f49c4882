"""Losses: what Keras computes where Keras has it, and class weights that balance."""

import keras
import numpy as np
import pytest

from temper.settings.training import CrossEntropy, Focal, Loss
from temper.training import losses

LABELS = np.array([0, 0, 0, 1, 2, 2], np.int32)
TARGETS = np.eye(3, dtype=np.float32)[LABELS]
PROBABILITIES = np.random.default_rng(0).dirichlet(np.ones(3), 6).astype(np.float32)
RIGHT = PROBABILITIES[np.arange(6), LABELS]


def value(settings: Loss, weights: losses.ClassWeights | None = None, targets: np.ndarray = TARGETS) -> float:
    return float(keras.ops.convert_to_numpy(losses.build(settings, weights)(targets, PROBABILITIES)))


def test_cross_entropy_is_minus_the_logarithm_of_the_right_probability() -> None:
    assert value(CrossEntropy()) == pytest.approx(-np.log(RIGHT).mean(), rel=1e-5)


def test_smoothing_spreads_a_share_of_the_target_evenly() -> None:
    smoothed = 0.7 * TARGETS + 0.3 / 3
    expected = -(smoothed * np.log(PROBABILITIES)).sum(1).mean()
    assert value(CrossEntropy(label_smoothing=0.3)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_focal_loss_is_that_of_the_paper(gamma: float) -> None:
    """Lin et al., equation 4; with gamma 0 it is cross-entropy."""
    expected = -((1 - RIGHT) ** gamma * np.log(RIGHT)).mean()
    assert value(Focal(name="focal", gamma=gamma)) == pytest.approx(expected, rel=1e-5)


def test_balanced_weights_give_every_class_the_same_say() -> None:
    weights = losses.balanced(LABELS, 4)
    assert weights.tolist() == pytest.approx([6 / 9, 6 / 3, 6 / 6, 0])
    totals = np.bincount(LABELS, weights[LABELS], minlength=4)
    assert totals[:3] == pytest.approx([2, 2, 2]) and weights[LABELS].mean() == pytest.approx(1)


def test_an_image_counts_by_its_class_and_a_mixed_one_by_its_mix() -> None:
    weights = np.array([1, 2, 4], np.float32)
    expected = -(weights[LABELS] * np.log(RIGHT)).mean()
    assert value(CrossEntropy(), weights) == pytest.approx(expected, rel=1e-5)
    mixed = np.tile(np.array([0.5, 0.5, 0], np.float32), (6, 1))
    expected = -(1.5 * (mixed * np.log(PROBABILITIES)).sum(1)).mean()
    assert value(CrossEntropy(), weights, mixed) == pytest.approx(expected, rel=1e-5)
