"""95 % confidence intervals of figures, for test sets of as many images as were measured.

Of 100 such intervals, about 95 contain the value that would be measured on infinitely many images of the same kind. The
tests count this on simulated test sets; docs/results.md says where it falls short. An interval covers the choice of the
images only, not the seed of the training.
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

Z = 1.959964  # 95 % of a normal distribution lie within this many standard deviations
OUTSIDE = (0.025, 0.975)  # 95 % of a distribution lie between these quantiles

TRIALS = 1000  # the number of simulated test sets for the interval of a calibration error

Interval = tuple[float, float]  # low, high


def intervals(
    probabilities: Probabilities, labels: Labels, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """The 95 % interval of each figure of `metrics.measure` that has one.

    - accuracy and top-k accuracy: Wilson's interval.
    - precision, recall and F1, macro and weighted: the variance from a bootstrap over the images, then Wilson's
      interval with the effective sample size that this variance means (see `from_variance`). The quantiles of the
      resamples themselves would contain the truth too rarely if few images are wrong: without any mistake, all
      resamples are perfect.
    - macro_auc: the same, with the variance of DeLong et al.
    - loss: bootstrap-t (Efron 1981; Hall 1988), which follows the long upper tail.
    - calibration_error: see `calibration_interval`.

    Args:
        resamples: the number of resamples of the bootstrap.
        seed: the seed of the bootstrap.

    Raises:
        ValueError: as in `measure`.
    """
    figures, images = measure(probabilities, labels), len(labels)
    found = {name: wilson(value, images) for name, value in figures.items() if name.endswith("accuracy")}
    scores = per_class(probabilities, labels)
    of_classes = scores.images[scores.images > 0]
    balanced = (
        len(of_classes) ** 2 / (1 / of_classes).sum()
    )  # the effective sample size of a mean of the classes' recalls
    # In a class of n images, the variance of resamples and placements is too small, by about 1 part in n.
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
    # An interval around a value corrected for bias may not include the measured value: widen it to do so.
    found = {name: (min(low, figures[name]), max(high, figures[name])) for name, (low, high) in found.items()}
    return found | probability_intervals(probabilities, labels, resamples, seed)


def probability_intervals(
    probabilities: Probabilities, labels: Labels, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """The intervals of only those figures that temperature scaling changes: loss and calibration_error."""
    return {
        "loss": loss_interval(log_losses(probabilities, labels), resamples, seed),
        "calibration_error": calibration_interval(reliability(probabilities, labels), min(TRIALS, resamples), seed),
    }


def wilson(share: float, images: float) -> Interval:
    """Wilson's interval of a share of independent images (Wilson 1927); `images` need not be a whole number.

    It stays within 0 and 1, and has a sensible width even if the share is 0 or 1.
    """
    low, high = wilson_bounds(np.array(share), np.array(images))
    return float(low), float(high)


def wilson_bounds(share: Floats, images: npt.NDArray[np.floating] | npt.NDArray[np.integer]) -> tuple[Floats, Floats]:
    """`wilson` for many shares, each with its own number of images; nan where that number is 0."""
    counted = np.where(images > 0, images, np.nan)
    middle = share + Z**2 / (2 * counted)
    half = Z * np.sqrt(share * (1 - share) / counted + (Z / (2 * counted)) ** 2)
    low, high = ((middle + sign * half) / (1 + Z**2 / counted) for sign in (-1, 1))
    # Rounding must not push the measured share outside its interval:
    return np.clip(low, 0, share), np.clip(high, share, 1)


def from_variance(value: float, variance: float, images: float) -> Interval:
    """The interval of a figure from 0 to 1 that is not a share of images, such as a macro F1, from its variance.

    It is Wilson's interval with the effective sample size: the number of images at which a share of this value would
    have this variance. Surveys use it in the same way (Kott and Carr 1997, "Developing an estimation strategy for a
    pesticide data program").

    Args:
        images: the effective sample size to use if the value is 0 or 1 or does not vary, so the variance tells nothing.
    """
    if value <= 0 or value >= 1 or variance < 1e-10:
        return wilson(min(max(value, 0.0), 1.0), images)
    return wilson(value, value * (1 - value) / variance)


def first_order_bias(scores: PerClass) -> dict[str, float]:
    """How far too high two of the averages are when classes have few images (negative: too low); by figure.

    For the other averages the bias is negligible. The figures are ratios of counts; their expectations are expanded to
    second order, with Poisson counts. At an F1 of 0.5 and four images per class, macro F1 is 0.03 too low. A class that
    happens to have many images has a larger weight and is then also predicted correctly more often, so the weighted
    precision is too high.
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
    """The figures of `metrics.averages` on resamples of the images, each (resamples,)."""
    cells = _Cells.of(labels, probabilities.argmax(axis=1), probabilities.shape[1])
    blocks = [cells.averages(weights) for weights in resample(len(labels), resamples, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


@dataclass(frozen=True)
class _Cells:
    """An order of the images in which the counts of each class are sums over neighbours, which is fast.

    Attributes:
        order: the images, those that are predicted wrongly first, then by label.
        starts: where each group of equal label and correctness begins in `order`.
        groups: the label of each group, plus the number of classes if its images are predicted correctly.
        wrong: the images that are predicted wrongly, ordered by predicted class.
        wrong_starts, taken_for: where each group of equal predicted class begins in `wrong`, and that class.
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
        """The figures of `metrics.averages` for some resamples, each (resamples,)."""
        by_group = np.zeros((len(weights), 2 * self.classes), np.float32)
        by_group[:, self.groups] = np.add.reduceat(weights[:, self.order], self.starts, axis=1)
        right = by_group[:, self.classes :]
        guesses = right.copy()
        if len(self.wrong):
            guesses[:, self.taken_for] += np.add.reduceat(weights[:, self.wrong], self.wrong_starts, axis=1)
        return averages(right, right + by_group[:, : self.classes], guesses)


def loss_interval(losses: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The interval of the mean log loss by bootstrap-t, from 0 to at most the largest loss that an image can have.

    For each resample, the distance of its mean from the mean of all images is counted in the resample's own standard
    errors. Resamples with few of the costly mistakes have a small mean and a small standard error, so the interval
    reaches far upwards, as it must.
    """
    value, most = float(losses.mean()), float(-np.log(EPSILON))
    error = float(losses.std() / np.sqrt(len(losses)))
    if error == 0:  # a single image, or equal losses, which do not show how others would vary
        return 0.0, most
    centred = (losses - value).astype(np.float32)
    moments = (np.ones_like(centred), centred, centred**2)
    # einsum, not @: its sums do not depend on the number of threads of the machine's linear algebra library (law 10).
    blocks = [
        [np.einsum("ri,i->r", weights, moment) for moment in moments]
        for weights in resample(len(losses), resamples, seed)
    ]
    count, total, squares = np.concatenate(blocks, axis=1, dtype=np.float64)
    mean = total / np.maximum(count, 1)
    errors = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0) / np.maximum(count, 1))
    # A resample of the same image over and over has a standard error of 0, so its distance is huge.
    low, high = np.quantile(mean / np.maximum(errors, 1e-12), OUTSIDE)
    return float(np.clip(value - high * error, 0, value)), float(np.clip(value - low * error, value, most))


def calibration_interval(measured: Reliability, trials: int = TRIALS, seed: int = 0) -> Interval:
    """The interval of the calibration error that infinitely many images in the same bins would have.

    The measured error is too high, and the fewer images there are, the more: in each bin, chance alone opens a gap
    between confidence and accuracy. So the interval is found by inverting a test (Carpenter 1999,
    doi:10.1111/1467-9868.00169): it contains the true errors under which the measured error is not surprising. At a
    true error of 0 all gaps are 0. For larger errors, the proportions of the bins' gaps must be assumed: first as
    measured, then shrunk towards their mean as far as chance explains them (Efron and Morris 1975). The result spans
    both intervals. On few images, all of it may lie below the measured error.
    """
    filled = measured.images > 0
    images, confidence = measured.images[filled], measured.confidence[filled]
    gaps, shares = measured.accuracy[filled] - confidence, images / images.sum()
    chance = np.maximum(confidence * (1 - confidence), 1e-4) / images  # the variance of each gap by chance alone
    real = max(float((gaps**2 - chance) @ shares), 0.1 * float(chance @ shares))
    shrunk = (gaps * real + chance * float(gaps @ shares)) / (chance + real)
    both = [_inverted(measured.error, images, confidence, shape, trials, seed) for shape in (gaps, shrunk)]
    low, high = min(pair[0] for pair in both), max(pair[1] for pair in both)
    accuracy = float(measured.accuracy[filled] @ shares)
    if accuracy in (0, 1):  # all right or all wrong: no bin shows how far off the probabilities of the others would be
        high = max(high, *(abs(bound - float(confidence @ shares)) for bound in wilson(accuracy, int(images.sum()))))
    return low, high


def _inverted(
    error: float, images: npt.NDArray[np.int64], confidence: Floats, gaps: Floats, trials: int, seed: int
) -> Interval:
    """The range of true errors under which the measured `error` is not surprising, if gaps are proportional to `gaps`.

    Args:
        images, confidence, gaps: one value for each bin.
    """
    shares = images / images.sum()
    edge = 1 / (images + 2)  # an accuracy nearer to 0 or 1 than this is assumed to vary as much as here
    least, most = np.minimum(confidence, edge), np.maximum(confidence, 1 - edge)

    def lower(stretch: float) -> float:
        """The share of trials whose measured error is below `error`, with gaps of `stretch * gaps`; ties count half."""
        accuracy = np.clip(confidence + stretch * gaps, least, most)
        random = np.random.default_rng([seed, trials])
        noise = random.binomial(images, accuracy, (trials, len(images))) / images - accuracy
        errors = (np.abs(noise + stretch * gaps) * shares).sum(axis=1)
        return float((errors < error - 1e-12).mean() + (errors <= error + 1e-12).mean()) / 2

    def bound(share: float) -> float:
        """The true error at which `share` of the trials measure less than `error`."""
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
    """The 95 % intervals of each class's precision, recall and F1: for each, the low and the high bounds, (classes,).

    F1 = 2 J / (1 + J), where J is the share of correct images among those that have the class or were predicted to have
    it. J is a share of independent images, so Wilson's interval is valid for it, even on few images. Where a figure is
    nan, its bounds are nan too.
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
