"""How well probabilities rank the images of a class before all others: ROC and precision-recall curves, and the AUC.

Always one class against the rest: its images are the positives, all others the negatives.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from temper.measures.calibration import Floats, Labels, Probabilities


@dataclass(frozen=True)
class MacroAuc:
    """The mean area under the ROC curves of the classes.

    Attributes:
        value: 0 to 1; 0.5 is chance.
        variance: the variance of `value` over test sets of the same number of images.
    """

    value: float
    variance: float


def macro_auc(probabilities: Probabilities, labels: Labels) -> MacroAuc | None:
    """The mean area under the ROC curve of each class against the rest, over the classes that have images.

    The area is the share of all pairs of a positive and a negative in which the positive has the higher probability;
    ties count half. Its variance comes from the placement of each image among those of the other kind (DeLong et al.
    1988, doi:10.2307/2531595). An image is a positive for one class and a negative for all others. Its contributions
    are added up before they are squared, so that the covariances between classes are included.

    Returns:
        the mean and its variance; `None` if all images are of one class, so that there is nothing to rank.
    """
    found = _areas(probabilities, labels)
    if found is None:
        return None
    return MacroAuc(float(found.areas.mean()), _variance(found.influence, found.placements, labels))


def paired_auc_error(old: Probabilities, new: Probabilities, labels: Labels) -> float | None:
    """The standard error of the difference between two models' `macro_auc` on the same images (DeLong et al. 1988).

    Returns:
        the standard error; `None` if all images are of one class.
    """
    of_old, of_new = _areas(old, labels), _areas(new, labels)
    if of_old is None or of_new is None:
        return None
    influence, placements = of_new.influence - of_old.influence, of_new.placements - of_old.placements
    return float(np.sqrt(_variance(influence, placements, labels)))


@dataclass(frozen=True)
class _Areas:
    """The area under the ROC curve of each class that has images.

    Attributes:
        areas: the area of each of these classes.
        placements: for each image, the share of the images of other classes that it ranks before, minus the mean of
            its class, (N,).
        influence: the influence of each image on the mean area, times the number of classes, (N,).
    """

    areas: Floats
    placements: Floats
    influence: Floats


def _areas(probabilities: Probabilities, labels: Labels) -> _Areas | None:
    classes = np.unique(labels)
    if len(classes) < 2:
        return None
    areas, placements, influence = np.empty(len(classes)), np.empty(len(labels)), np.zeros(len(labels))
    for place, number in enumerate(classes.tolist()):
        positive = labels == number
        yes, no = probabilities[positive, number], probabilities[~positive, number]
        above, below = _placements(yes, no), 1 - _placements(no, yes)
        areas[place] = above.mean()
        placements[positive] = above - areas[place]
        influence[positive] += placements[positive] / len(yes)
        influence[~positive] += (below - areas[place]) / len(no)
    return _Areas(areas, placements, influence)


def _variance(influence: Floats, placements: Floats, labels: Labels) -> float:
    """The variance of the mean area, or of the difference between two models' mean areas, from what `_areas` found."""
    _, of_image, positives = np.unique(labels, return_inverse=True, return_counts=True)
    spreads = np.asarray(np.bincount(of_image, weights=placements**2), np.float64)
    variance = (influence**2).sum() + _missing_variance(spreads, positives)
    return float(variance) / len(positives) ** 2


def _missing_variance(spreads: Floats, positives: npt.NDArray[np.integer]) -> float:
    """What must be added to the sum of the squared influences, which is too small for classes with few positives.

    The squared deviations of n values from their own mean add up to n - 1 variances, not n. A single positive does not
    show how others would vary, so the mean variance of all classes is used for it.

    Args:
        spreads: for each class, the sum of the squared deviations of its positives' placements from their mean.
        positives: for each class, the number of its images.
    """
    free = positives - 1
    pooled = spreads.sum() / max(free.sum(), 1)
    variances = np.where(free > 0, spreads / np.maximum(free, 1), pooled)
    return float((variances / positives - spreads / positives**2).sum())


def _placements(scores: npt.NDArray[np.floating], others: npt.NDArray[np.floating]) -> Floats:
    """For each score, the share of `others` that is lower; ties count half."""
    ordered = np.sort(others)
    places: Floats = (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / 2
    return places / len(ordered)


@dataclass(frozen=True)
class Curve:
    """The ROC and precision-recall curves of a class: one point for each threshold, in falling order of the threshold.

    An image counts as the class if its probability reaches the threshold.

    Attributes:
        recall: the share of the class's images that count as it (the true positive rate), rising from 0 to 1.
        false_positives: the share of the other images that count as the class (the false positive rate).
        precision: of the images that count as the class, the share that has it; 1 if none counts.
    """

    recall: Floats
    false_positives: Floats
    precision: Floats


def curve(scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_], most: int = 100) -> Curve | None:
    """The ROC and precision-recall curves of one class: a start point and at most `most` thresholds.

    Args:
        scores: the probability of the class, (N,).
        positive: whether an image is of the class, (N,).

    Returns:
        the curves; `None` if there are no positives or no negatives.
    """
    total = int(positive.sum())
    if total in (0, len(positive)):
        return None
    order = np.argsort(-scores, kind="stable")
    steps = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # the last image of each threshold
    hits = np.cumsum(positive[order])[steps]
    if len(steps) > most:  # keep points that are evenly spaced along the length of the ROC curve
        length = hits / total + (steps + 1 - hits) / (len(positive) - total)
        kept = np.unique(np.searchsorted(length, np.linspace(0, 2, most)).clip(max=len(steps) - 1))
        steps, hits = steps[kept], hits[kept]
    counted = steps + 1
    start = [0.0]
    return Curve(
        np.append(start, hits / total),
        np.append(start, (counted - hits) / (len(positive) - total)),
        np.append([1.0], hits / counted),
    )
