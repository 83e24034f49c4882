"""Paired comparison of two models on the same images: by how much they differ, and whether that could be chance.

A hard image is usually hard for both models. So differences on the same images show far smaller effects than two
separate figures with their own intervals. "Old" is the model to compare with, "new" the model to judge; a difference is
always new minus old. All results cover the choice of the images only: another training seed may change the figures too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from temper.measures.calibration import BINS, Floats, Labels, Probabilities, log_losses
from temper.measures.intervals import Interval, Z, resampled_averages
from temper.measures.metrics import Integers, measure
from temper.measures.ranking import paired_auc_error
from temper.measures.resampling import RESAMPLES, resample

SIGNIFICANT = 0.05  # a difference with a smaller p value counts as shown
POWER_Z = 0.8416212  # 80 % of a normal distribution lie below this
FEWEST = 6  # images on which only one model is right; with fewer, McNemar's test never reaches significance
LOWER_IS_BETTER = frozenset({"loss", "calibration_error"})
HEADLINE = "accuracy"  # the one figure that decides: tests of several figures would more often find something in noise

CROWDED = frozenset(
    {"macro_precision", "macro_recall", "macro_f1", "weighted_precision", "weighted_f1", "macro_auc"}
)  # figures that are means of figures of single classes

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Difference:
    """The difference of one figure, new minus old.

    Attributes:
        interval: the 95 % interval of the difference.
        p: the probability, 0 to 1, of a difference at least as large if there is no real one; below 0.05 if, and only
            if, the interval does not include 0.
    """

    value: float
    interval: Interval
    p: float


@dataclass(frozen=True)
class Discordance:
    """The discordant images of two models: those on which only one of them is right.

    Attributes:
        gained: the number of images on which only the new model is right.
        lost: the number of images on which only the old model is right.
        images: the number of all images.
    """

    gained: int
    lost: int
    images: int

    @classmethod
    def of(cls, old_right: Flags, new_right: Flags) -> "Discordance":
        """Counts the discordant images, given the images on which each model is right, (N,)."""
        return cls(int((new_right & ~old_right).sum()), int((old_right & ~new_right).sum()), len(old_right))

    @property
    def difference(self) -> Difference:
        """The difference of the two accuracies.

        The interval is Tango's (1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B), which
        inverts a score test; p is from McNemar's exact test, which is slightly stricter. If the interval excludes 0 but
        p is not significant, as with 5 images gained and none lost, the interval is extended to 0.
        """
        p = mcnemar(self.gained, self.lost)
        low, high = (float(bound) for bound in tango(self.gained, self.lost, self.images))
        if p >= SIGNIFICANT:
            low, high = min(low, 0.0), max(high, 0.0)
        return Difference((self.gained - self.lost) / self.images, (low, high), p)

    @property
    def detectable(self) -> float:
        """The smallest real difference that this many images would show with a power of 80 %, 0 to 1.

        It is computed for McNemar's test, if the models disagree on as large a share of the images as here (Connor
        1987, doi:10.2307/2531961). The share of disagreement is assumed to be at least the difference itself.
        """
        share, low, high = (self.gained + self.lost) / self.images, 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            disagreeing = max(share, middle)
            needed = Z * math.sqrt(disagreeing) + POWER_Z * math.sqrt(max(disagreeing - middle**2, 0.0))
            low, high = (middle, high) if middle * math.sqrt(self.images) < needed else (low, middle)
        return high


def mcnemar(gained: int, lost: int) -> float:
    """The p value of McNemar's test: the probability that chance splits this many images at least so unevenly.

    This is the exact test. It finds a difference between equal models in at most 5 % of the cases, however few images
    are discordant (in 4 % with a hundred of them). The mid-p test finds a real difference slightly more often, but
    exceeds its level in some cases.
    """
    count, fewer = gained + lost, min(gained, lost)
    if gained == lost:
        return 1.0
    places = np.arange(1, fewer + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log((count - places + 1) / places))]) - count * math.log(2)
    return float(min(1.0, 2 * np.exp(logs).sum()))  # P(at most `fewer` heads of `count` coins)


def tango(
    gained: npt.ArrayLike, lost: npt.ArrayLike, images: npt.ArrayLike, z: float = Z
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Tango's score interval for the difference of two paired shares; arrays of any equal shape.

    It contains every difference that is at most `z` standard errors away from the observed one, where the standard
    error is the one under that difference. Even without any discordant image it has a sensible width.

    Returns:
        the lower and the upper bounds.
    """
    gained, lost, images = (np.asarray(of, np.float64) for of in (gained, lost, images))

    def distance(difference: Floats) -> Floats:
        """How many standard errors the observed difference lies above `difference`."""
        b = -gained - lost + (2 * images - gained + lost) * difference
        c = -lost * difference * (1 - difference)
        share = (np.sqrt(np.maximum(b**2 - 8 * images * c, 0)) - b) / (4 * images)
        variance = images * (2 * share + difference * (1 - difference))
        found: Floats = (gained - lost - images * difference) / np.sqrt(np.maximum(variance, 1e-12))
        return found

    value = (gained - lost) / images
    bounds = []
    for edge, side in ((-1.0, 1), (1.0, -1)):
        inside, outside = value.copy(), np.full(value.shape, edge)
        for _ in range(30):  # bisection, to a precision of 1e-9
            middle = (inside + outside) / 2
            near = side * distance(middle) <= z
            inside, outside = np.where(near, middle, inside), np.where(near, outside, middle)
        bounds.append(inside)
    return bounds[0], bounds[1]


def is_right(probabilities: Probabilities, labels: Labels, k: int = 1) -> Flags:
    """Whether the label is among the `k` most probable classes, (N,); on ties, lower class numbers come first."""
    of_label = probabilities[np.arange(len(labels)), labels][:, None]
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    ranks = ((probabilities > of_label) | ((probabilities == of_label) & before)).sum(axis=1)
    flags: Flags = ranks < k
    return flags


def differences(
    old: Probabilities, new: Probabilities, labels: Labels, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Difference]:
    """The difference of each figure of `metrics.measure`, by McNemar's test and the paired bootstrap.

    - accuracy and top-k accuracy: `Discordance.difference`.
    - precision, recall, F1 and calibration error: both models are measured on the same resamples of the images, and
      the differences give the standard error; interval and p are those of a normal distribution.
    - loss: the same, with the standard error of the mean difference of the images' losses.
    - macro AUC: the same, with the paired variance of DeLong et al. (1988).

    Args:
        old, new: (N, classes).
        labels: (N,).

    Raises:
        ValueError: as in `metrics.measure`.
    """
    figures = measure(old, labels), measure(new, labels)
    found: dict[str, Difference] = {}
    errors = _standard_errors(old, new, labels, resamples, seed)
    for name, value in figures[1].items():
        if name.endswith("accuracy"):
            k = int(name.split("_")[1]) if name.startswith("top_") else 1
            found[name] = Discordance.of(is_right(old, labels, k), is_right(new, labels, k)).difference
        elif name in errors:
            found[name] = _normal(value - figures[0][name], errors[name])
    return found


def _standard_errors(
    old: Probabilities, new: Probabilities, labels: Labels, resamples: int, seed: int
) -> dict[str, float]:
    """The standard error of the difference of each figure that is not a share of images."""
    of_old, of_new = (resampled_averages(one, labels, resamples, seed) for one in (old, new))  # on the same resamples
    errors = {name: float((of_new[name] - of_old[name]).std()) for name in of_new}
    losses = log_losses(new, labels) - log_losses(old, labels)
    errors["loss"] = float(losses.std() / math.sqrt(len(losses)))
    gaps = [_Gaps.of(one, labels) for one in (old, new)]
    drawn = [gaps[1].errors(weights) - gaps[0].errors(weights) for weights in resample(len(labels), resamples, seed)]
    errors["calibration_error"] = float(np.concatenate(drawn).std())
    auc_error = paired_auc_error(old, new, labels)
    if auc_error is not None:
        errors["macro_auc"] = auc_error
    # In a class of n images, the variance of resamples and placements is too small, by about 1 part in n.
    crowd = math.sqrt(1 + len(np.unique(labels)) / len(labels))
    return {name: error * (crowd if name in CROWDED else 1.0) for name, error in errors.items()}


def _normal(value: float, error: float) -> Difference:
    """The `Difference` of a value with this standard error; an error of 0 means that both models answered alike."""
    if error < 1e-12:
        return Difference(value, (value, value), 1.0 if abs(value) < 1e-12 else 0.0)
    p = math.erfc(abs(value) / error / math.sqrt(2))
    return Difference(value, (value - Z * error, value + Z * error), p)


@dataclass(frozen=True)
class _Gaps:
    """The images ordered by their bin in `calibration.reliability`, for fast sums over bins.

    Attributes:
        order: the images, ordered by bin.
        starts: where each bin that has images begins in `order`.
        gaps: for each image in that order, its confidence, minus 1 if it is predicted correctly.
    """

    order: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]
    gaps: npt.NDArray[np.float32]

    @classmethod
    def of(cls, probabilities: Probabilities, labels: Labels) -> "_Gaps":
        confidence = probabilities.max(axis=1).astype(np.float64)
        bins = np.clip(np.ceil(confidence * BINS).astype(np.intp) - 1, 0, BINS - 1)
        order = np.argsort(bins, kind="stable")
        gaps = confidence - (probabilities.argmax(axis=1) == labels)
        return cls(order, np.unique(bins[order], return_index=True)[1], gaps[order].astype(np.float32))

    def errors(self, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The calibration error of each resample."""
        of_bins = np.abs(np.add.reduceat(weights[:, self.order] * self.gaps, self.starts, axis=1))
        found: npt.NDArray[np.float32] = of_bins.sum(axis=1) / np.maximum(weights.sum(axis=1), 1)
        return found


@dataclass(frozen=True)
class ClassDifferences:
    """How the recall of each class differs, each an array of shape (classes,).

    Attributes:
        images: the number of the class's images.
        gained, lost: as in `Discordance`.
        low, high: the 95 % interval of the difference of the recalls, without a correction for several classes; nan if
            the class has no images.
        p: the p value of McNemar's test, corrected for the classes that could have shown a difference (`holm`).
    """

    images: Integers
    gained: Integers
    lost: Integers
    low: Floats
    high: Floats
    p: Floats

    @property
    def value(self) -> Floats:
        """The new recall minus the old one, (classes,); nan for a class without images."""
        return (self.gained - self.lost) / np.where(self.images > 0, self.images, np.nan)


def class_differences(old: Probabilities, new: Probabilities, labels: Labels) -> ClassDifferences:
    """The differences of each class's recall.

    A class with fewer than `FEWEST` discordant images can never show a difference, so the correction does not count it.
    This is valid because the number of discordant images says nothing about the direction of the change (Tarone 1990,
    doi:10.2307/2531456).
    """
    classes = old.shape[1]
    right = is_right(old, labels), is_right(new, labels)
    images = np.bincount(labels, minlength=classes)
    gained = np.bincount(labels[right[1] & ~right[0]], minlength=classes)
    lost = np.bincount(labels[right[0] & ~right[1]], minlength=classes)
    alone = np.array([mcnemar(*pair) for pair in zip(gained.tolist(), lost.tolist(), strict=True)])
    low, high = (np.where(images > 0, bound, np.nan) for bound in tango(gained, lost, np.maximum(images, 1)))
    unshown = alone >= SIGNIFICANT  # as in `Discordance.difference`
    low, high = np.where(unshown, np.minimum(low, 0), low), np.where(unshown, np.maximum(high, 0), high)
    p, able = np.ones(classes), gained + lost >= FEWEST
    p[able] = holm(alone[able].tolist())
    return ClassDifferences(images, gained, lost, low, high, p)


def holm(values: Sequence[float]) -> Floats:
    """Adjusts the p values of several tests, so that together they err as rarely as a single test (Holm 1979)."""
    order = np.argsort(values, kind="stable")
    raised = np.asarray(values, np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1.0) if len(order) else raised
    return adjusted


def shown(found: Mapping[str, Difference]) -> dict[str, bool]:
    """The figures other than the headline that differ by more than chance, corrected by `holm`; True: it is better."""
    others = [name for name in found if name != HEADLINE]
    raised = holm([found[name].p for name in others])
    return {
        name: is_better(name, found[name].value)
        for name, p in zip(others, raised.tolist(), strict=True)
        if p < SIGNIFICANT
    }


def is_better(name: str, difference: float) -> bool:
    """Whether a difference of this figure is an improvement."""
    return difference < 0 if name in LOWER_IS_BETTER else difference > 0


def verdict(name: str, found: Difference) -> str:
    """`better`, `worse` or `no difference`, from one figure alone."""
    if found.p >= SIGNIFICANT:
        return "no difference"
    return "better" if is_better(name, found.value) else "worse"


def may_replace(found: Difference, margin: float) -> bool:
    """Whether a new model may replace the old one: it is not worse by `margin` or more.

    This is a test of non-inferiority at a level of 2.5 %, on a figure of which higher is better: the lower bound of the
    95 % interval must be above -`margin`. With the rule "no difference was shown", a worse model would pass on few
    images.

    Args:
        margin: 0 or more, in the figure's own unit; 0 requires a model that is shown to be better.

    Raises:
        ValueError: the margin is below 0 or not a number.
    """
    if not margin >= 0:
        raise ValueError(f"expected a margin of 0 or more, received {margin}")
    return found.interval[0] > -margin
