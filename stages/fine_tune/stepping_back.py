"""Steps back from a fine-tune whose gain on validation may be chance, halfway to the warm-up.

Weights on the straight line from a model to its fine-tuned version often predict better than those at either end, and
the middle is what the method's authors recommend where there are too few images to choose by (WiSE-FT: Wortsman et al.,
"Robust fine-tuning of zero-shot models", arXiv:2109.01903). The line leads to the last epoch, not to the best one,
because which epoch looks best may be chance as well, and the last epochs have the lowest learning rates.
docs/results.md says what this gains.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stages.fine_tune.gains import Gain, gain
from temper.measures.calibration import Labels, Probabilities
from temper.training.unfinished import Arrays

HALFWAY = 0.5


@dataclass(frozen=True)
class Step:
    """The weights that are kept.

    Attributes:
        share: how much of the way from the warm-up to fine-tuned weights they are: 1 for the best epoch, `HALFWAY` for
            half of the way to the last epoch, 0 for the warm-up.
        gain: how much they improve on the warm-up on the validation images; None for the warm-up itself.
        probabilities: their predictions for the validation images, (N, classes).
        best: how much the best epoch improves on the warm-up; None if no epoch does.
    """

    share: float
    gain: Gain | None
    probabilities: Probabilities
    best: Gain | None


def halfway(start: Arrays, end: Arrays) -> Arrays:
    """Weights halfway between one model's and another's.

    Weights that are equal in both keep their bits. Integers, the states of random generators, are those of the end.
    """
    pairs = zip(start, end, strict=True)
    return [last if last.dtype.kind != "f" else _middle(first, last) for first, last in pairs]


def _middle(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # infinite weights, which are equal
        return np.where(first == last, first, first + last.dtype.type(HALFWAY) * (last - first))


def step_back(
    before: Probabilities,
    best: Probabilities | None,
    predict_halfway: Callable[[], Probabilities],
    labels: Labels,
    margin: float,
) -> Step:
    """Chooses the best epoch if it gains `margin` standard errors, else halfway if that gains anything, else nothing.

    Args:
        before: the warm-up's predictions for the validation images, (N, classes).
        best: those of the best epoch; None if no epoch was better than the warm-up.
        predict_halfway: gives the model the weights halfway to the last epoch and returns their predictions.
        labels: the classes of these images, (N,).
    """
    of_best = None
    if best is not None:
        of_best = gain(before, best, labels)
        if of_best.mean >= 0 and of_best.in_standard_errors >= margin:
            return Step(1.0, of_best, best, of_best)
    half = predict_halfway()
    of_half = gain(before, half, labels)
    if of_half.mean > 0 and math.isfinite(of_half.standard_error):  # one image shows nothing
        return Step(HALFWAY, of_half, half, of_best)
    return Step(0.0, None, before, of_best)
