"""Steps back from the fine-tuned weights, halfway to the warm-up's, if their gain on validation may be chance.

Weights on the straight line from a model to its fine-tuned version often predict better than those at either end, and
the middle is what its authors recommend where there are too few images to choose by (WiSE-FT: Wortsman et al., "Robust
fine-tuning of zero-shot models", arXiv:2109.01903). docs/training.md has what it gains here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from stages.fine_tune.gains import Gain, gain
from temper.measures.calibration import Labels, Probabilities
from temper.training.unfinished import Arrays

HALFWAY = 0.5


@dataclass(frozen=True)
class Step:
    """The weights that are kept.

    Attributes:
        share: how much of the way from the warm-up to the fine-tuned weights they are: 1, `HALFWAY` or 0.
        gain: how much they improve on the warm-up on the validation images.
        whole: how much the fine-tuned weights improve on it.
        probabilities: their predictions for the validation images, (N, classes).
    """

    share: float
    gain: Gain
    whole: Gain
    probabilities: Probabilities


def between(start: Arrays, end: Arrays, share: float) -> Arrays:
    """Weights at a share of the way, 0 to 1, from one model's to another's.

    Weights that are equal in both keep their bits. Integers, the states of random generators, are those of the end.
    """
    if share == 1:
        return end
    pairs = zip(start, end, strict=True)
    return [last if last.dtype.kind != "f" else first + share * (last - first) for first, last in pairs]


def step_back(
    predictions: Callable[[float], Probabilities], before: Probabilities, labels: Labels, margin: float
) -> Step:
    """All of the way if it gains at least `margin` standard errors, else half of it if that gains anything, else none.

    Args:
        predictions: returns the predictions of the weights at a share of the way for the validation images.
        before: the warm-up's predictions for them, (N, classes).
        labels: the classes of these images, (N,).
    """
    after = predictions(1.0)
    whole = gain(before, after, labels)
    if whole.in_standard_errors >= margin:
        return Step(1.0, whole, whole, after)
    after = predictions(HALFWAY)
    half = gain(before, after, labels)
    if half.mean > 0:
        return Step(HALFWAY, half, whole, after)
    return Step(0.0, Gain(0.0, 0.0), whole, before)
