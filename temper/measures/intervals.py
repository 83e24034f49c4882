"""What a figure is worth: its 95 % interval, over test sets of as many images as were measured.

Of 100 such intervals about 95 hold what would be measured on endlessly many images of the same kind. The tests count it
on simulated test sets; docs/results.md says where it falls short. An interval speaks of the images alone, not of the
seed of the training.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from temper.measures.calibration import (
    EPSILON,
    Floats,
    Labels,
    Probabilities,
    Reliability,
    log_losses,
    reliability,
)
from temper.measures.metrics import AnyFloats, PerClass, averages, measure, per_class
from temper.measures.ranking import macro_auc
from temper.measures.resampling import RESAMPLES, Weights, resample

Z = 1.959964  # of a normal distribution, 95 % lie within so many standard deviations
OUTSIDE = (0.025, 0.975)  # the quantiles between which they lie

TRIALS = 1000  # simulated test sets for a calibration error

Interval = tuple[float, float]  # low, high


def intervals(
    probabilities: Probabilities, labels: Labels, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """The 95 % interval of each figure of `measures.measure` that has one.

    - accuracy and top-k accuracy: Wilson's.
    - precision, recall and F1, macro and weighted: the variance by bootstrap over the images, then Wilson's interval
      for as many images as would give a share of that variance. Quantiles of the resamples themselves would hold the
      truth too seldom where few images are wrong: without any mistake, all resamples are perfect.
    - macro_auc: the same from the variance of DeLong et al.
    - loss: bootstrap-t (Efron 1981; Hall 1988), which follows the long upper tail.
    - calibration_error: see `calibration_interval`.

    Args:
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: as `measure`.
    """
    figures, images = measure(probabilities, labels), len(labels)
    found = {name: wilson(value, images) for name, value in figures.items() if name.endswith("accuracy")}
    scores = per_class(probabilities, labels)
    of_classes = scores.images[scores.images > 0]
    balanced = (
        len(of_classes) ** 2 / (1 / of_classes).sum()
    )  # of as many images a mean of the classes' recalls is worth
    # Within a class of n images, resamples and placements vary too little, by about 1 part in n.
    crowd = 1 + len(of_classes) / images
    bias = first_order_bias(scores)
    for name, values in resampled_averages(probabilities, labels, resamples, seed).items():
        value, variance = figures[name] - bias.get(name, 0.0), float(values.var())
        if name.startswith("weighted"):
            found[name] = from_variance(value, variance, images)
        else:
            found[name] = from_variance(value, variance * crowd, balanced)
    auc = macro_auc(probabilities, labels)
    if auc is not None:
        found["macro_auc"] = from_variance(auc.value, auc.variance * crowd, balanced)
    # Around a corrected middle, an interval may end short of what was measured.
    found = {name: (min(low, figures[name]), max(high, figures[name])) for name, (low, high) in found.items()}
    return found | probability_intervals(probabilities, labels, resamples, seed)


def probability_intervals(
    probabilities: Probabilities, labels: Labels, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """The intervals of those figures alone that temperature scaling changes: loss and calibration_error."""
    return {
        "loss": loss_interval(log_losses(probabilities, labels), resamples, seed),
        "calibration_error": calibration_interval(reliability(probabilities, labels), min(TRIALS, resamples), seed),
    }


def wilson(share: float, images: float) -> Interval:
    """Wilson's interval of a share of independent images (Wilson 1927); `images` need not be whole.

    It keeps within 0 and 1, and is as wide as it should be where all or none of the images count.
    """
    low, high = wilson_bounds(np.array(share), np.array(images))
    return float(low), float(high)


def wilson_bounds(share: Floats, images: npt.NDArray[np.floating] | npt.NDArray[np.integer]) -> tuple[Floats, Floats]:
    """`wilson` of many shares, each of its number of images; nan where that is 0."""
    counted = np.where(images > 0, images, np.nan)
    middle = share + Z**2 / (2 * counted)
    half = Z * np.sqrt(share * (1 - share) / counted + (Z / (2 * counted)) ** 2)
    low, high = ((middle + sign * half) / (1 + Z**2 / counted) for sign in (-1, 1))
    # Not beyond what was measured, by rounding:
    return np.clip(low, 0, share), np.clip(high, share, 1)


def from_variance(value: float, variance: float, images: float) -> Interval:
    """The interval of a figure between 0 and 1 that is no share of images, from its variance.

    Wilson's interval for as many images as would give a share of that variance: the effective sample size, as surveys
    use it (Kott and Carr 1997, "Developing an estimation strategy for a pesticide data program").

    Args:
        images: the effective sample size where nothing varies, so that the variance tells nothing.
    """
    if value <= 0 or value >= 1 or variance < 1e-10:
        return wilson(min(max(value, 0.0), 1.0), images)
    return wilson(value, value * (1 - value) / variance)


def first_order_bias(scores: PerClass) -> dict[str, float]:
    """By how much two of the averages come out too high on few images a class; of the others it is negligible.

    The expectations of ratios of counts by their expansion to second order, with counts that vary as Poisson's do. At
    an F1 of 0.5 and four images a class, macro F1 comes out 0.03 too low. A class that happens to have many images
    weighs more, and is then also named rightly more often: the weighted precision comes out too high.
    """
    there = scores.images > 0
    f1, precision = scores.f1[there], scores.precision[there]
    counts = (scores.images + scores.guesses)[there]
    return {
        "macro_f1": -float((f1 * (1 - f1) / np.maximum(counts - 1, 1)).mean()),
        "weighted_precision": float((precision * (1 - precision)).sum() / scores.images.sum()),
    }


def resampled_averages(
    probabilities: Probabilities, labels: Labels, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, AnyFloats]:
    """The figures of `measures.averages` on resamples of the images, each (resamples,)."""
    cells = _Cells.of(labels, probabilities.argmax(axis=1), probabilities.shape[1])
    blocks = [cells.averages(weights) for weights in resample(len(labels), resamples, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


@dataclass(frozen=True)
class _Cells:
    """The images ordered so that the counts of each class are sums of neighbours: those that are wrong first.

    Attributes:
        order: the images, by whether they are right, then by label.
        starts: in `order`, where each group begins.
        groups: the label of each group, with the number of classes added where the images are right.
        wrong: the images that are wrong, by what they were taken for.
        wrong_starts, taken_for: of those, where each group begins, and its class.
    """

    classes: int
    order: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]
    groups: npt.NDArray[np.intp]
    wrong: npt.NDArray[np.intp]
    wrong_starts: npt.NDArray[np.intp]
    taken_for: npt.NDArray[np.intp]

    @classmethod
    def of(cls, labels: Labels, guesses: npt.NDArray[np.intp], classes: int) -> "_Cells":
        keys = labels + classes * (labels == guesses)
        order = np.argsort(keys, kind="stable")
        groups, starts = np.unique(keys[order], return_index=True)
        wrong = np.flatnonzero(labels != guesses)
        wrong = wrong[np.argsort(guesses[wrong], kind="stable")]
        taken_for, wrong_starts = np.unique(guesses[wrong], return_index=True)
        return cls(classes, order, starts, groups, wrong, wrong_starts, taken_for)

    def averages(self, weights: Weights) -> dict[str, AnyFloats]:
        """The figures of `measures.averages` of some resamples."""
        by_group = np.zeros((len(weights), 2 * self.classes), np.float32)
        by_group[:, self.groups] = np.add.reduceat(weights[:, self.order], self.starts, axis=1)
        right = by_group[:, self.classes :]
        guesses = right.copy()
        if len(self.wrong):
            guesses[:, self.taken_for] += np.add.reduceat(weights[:, self.wrong], self.wrong_starts, axis=1)
        return averages(right, right + by_group[:, : self.classes], guesses)


def loss_interval(losses: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The interval of the mean log loss by bootstrap-t, between 0 and the most that an image can cost.

    Each resample says how many of its own standard errors its mean is away from that of all images. Resamples with few
    of the costly mistakes have a small mean and a small error, so the interval reaches far upwards, as it must.
    """
    value, most = float(losses.mean()), float(-np.log(EPSILON))
    error = float(losses.std() / np.sqrt(len(losses)))
    if error == 0:  # a single image, or equal ones: they say nothing of how others vary
        return 0.0, most
    centred = (losses - value).astype(np.float32)
    moments = (np.ones_like(centred), centred, centred**2)
    # einsum, not @: its sums do not depend on how many threads a machine's library of linear algebra takes (law 10).
    blocks = [
        [np.einsum("ri,i->r", weights, moment) for moment in moments]
        for weights in resample(len(losses), resamples, seed)
    ]
    count, total, squares = np.concatenate(blocks, axis=1, dtype=np.float64)
    mean = total / np.maximum(count, 1)
    errors = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0) / np.maximum(count, 1))
    # A resample of one image over and over has no error of its own: it is beyond all bounds.
    low, high = np.quantile(mean / np.maximum(errors, 1e-12), OUTSIDE)
    return float(np.clip(value - high * error, 0, value)), float(np.clip(value - low * error, value, most))


def calibration_interval(measured: Reliability, trials: int = TRIALS, seed: int = 0) -> Interval:
    """The interval of the calibration error that endlessly many images in the same bins would show.

    The measured error is too high, the more so the fewer images: in each bin, chance alone opens a gap. So the interval
    is found by inverting a test (Carpenter 1999, doi:10.1111/1467-9868.00169): it holds the errors under which the
    measured one is not surprising. At an error of 0 all gaps are 0. For larger ones the gaps of the bins must be taken
    to be in some proportion: as measured, and once more shrunk towards their mean as far as chance explains them (Efron
    and Morris 1975). The interval is the wider of both. On few images all of it may lie below the measured error.
    """
    filled = measured.images > 0
    images, confidence = measured.images[filled], measured.confidence[filled]
    gaps, shares = measured.accuracy[filled] - confidence, images / images.sum()
    chance = np.maximum(confidence * (1 - confidence), 1e-4) / images  # the variance of each gap where none is real
    real = max(float((gaps**2 - chance) @ shares), 0.1 * float(chance @ shares))
    shrunk = (gaps * real + chance * float(gaps @ shares)) / (chance + real)
    both = [_inverted(measured.error, images, confidence, shape, trials, seed) for shape in (gaps, shrunk)]
    low, high = min(pair[0] for pair in both), max(pair[1] for pair in both)
    accuracy = float(measured.accuracy[filled] @ shares)
    if accuracy in (0, 1):  # no bin shows how wrong the probabilities may be where images are wrong, or right
        high = max(high, *(abs(bound - float(confidence @ shares)) for bound in wilson(accuracy, int(images.sum()))))
    return low, high


def _inverted(
    error: float, images: npt.NDArray[np.int64], confidence: Floats, gaps: Floats, trials: int, seed: int
) -> Interval:
    """The errors, of gaps in the proportions of `gaps`, under which the measured `error` is not surprising.

    Args:
        images, confidence, gaps: of each bin.
    """
    shares = images / images.sum()
    edge = 1 / (images + 2)  # nearer to 0 and 1, accuracy is taken to vary as much as here
    least, most = np.minimum(confidence, edge), np.maximum(confidence, 1 - edge)

    def lower(stretch: float) -> float:
        """The share of trials in which a lower error is measured, equal ones half."""
        accuracy = np.clip(confidence + stretch * gaps, least, most)
        random = np.random.default_rng([seed, trials])
        noise = random.binomial(images, accuracy, (trials, len(images))) / images - accuracy
        errors = (np.abs(noise + stretch * gaps) * shares).sum(axis=1)
        return float((errors < error - 1e-12).mean() + (errors <= error + 1e-12).mean()) / 2

    def bound(share: float) -> float:
        """The error at which `share` of the trials lie below the measured one."""
        low, high = 0.0, 1.0
        if lower(low) <= share:
            return 0.0
        while lower(high) > share and high < 1000:
            low, high = high, 2 * high
        for _ in range(8):
            middle = (low + high) / 2
            low, high = (middle, high) if lower(middle) > share else (low, middle)
        return min(high * float(np.abs(gaps) @ shares), 1.0)

    return bound(OUTSIDE[1]), bound(OUTSIDE[0])


def class_intervals(scores: PerClass) -> dict[str, tuple[Floats, Floats]]:
    """The 95 % intervals of each class's precision, recall and F1: arrays (classes,) of lows and of highs.

    F1 = 2 J / (1 + J), where J is the share of right images among those that are of the class or were taken for it.
    That is a share of independent images, so Wilson's interval holds for J too, on as few images as there are. Where
    the figure is nan, so are its bounds.
    """
    union = scores.images + scores.guesses - scores.right
    with np.errstate(invalid="ignore"):
        overlap = scores.right / np.where(union > 0, union, np.nan)
        low, high = wilson_bounds(overlap, union)
        found = {
            "precision": wilson_bounds(scores.precision, scores.guesses),
            "recall": wilson_bounds(scores.recall, scores.images),
            "f1": (2 * low / (1 + low), 2 * high / (1 + high)),
        }
    unknown = {name: np.isnan(getattr(scores, name)) for name in found}
    return {
        name: (np.where(unknown[name], np.nan, low), np.where(unknown[name], np.nan, high))
        for name, (low, high) in found.items()
    }
