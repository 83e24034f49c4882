"""How well probabilities put the images of a class before all others: areas under ROC curves, and the curves.

A class against the rest: its images are the positives, all others the negatives.
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
        variance: of `value`, over test sets of as many images.
    """

    value: float
    variance: float


def macro_auc(probabilities: Probabilities, labels: Labels) -> MacroAuc | None:
    """The mean area under the ROC curve of each class against the rest, over the classes that have images.

    The area is the share of all pairs of a positive and a negative in which the positive has the higher probability;
    equal ones count half. Its variance comes from the placement of each image among those of the other kind (DeLong et
    al. 1988, doi:10.2307/2531595). An image is a positive of one class and a negative of all others: its parts are
    added up before they are squared, so that the covariances of the classes are in.

    Returns:
        `None` where all images are of one class, for there is nothing to rank.
    """
    found = _areas(probabilities, labels)
    if found is None:
        return None
    return MacroAuc(float(found.areas.mean()), _variance(found.influence, found.placements, labels))


def paired_auc_error(old: Probabilities, new: Probabilities, labels: Labels) -> float | None:
    """The standard error of the difference of two models' `macro_auc` on the same images (DeLong et al. 1988).

    Returns:
        `None` where all images are of one class.
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
        areas: of the classes.
        placements: of each image among those of other classes, minus the mean of its class, (N,).
        influence: of each image on the mean of the areas, times the number of classes, (N,).
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
    """The variance of the mean of the areas, or of the difference of two such means, from what `_areas` found."""
    _, of_image, positives = np.unique(labels, return_inverse=True, return_counts=True)
    spreads = np.asarray(np.bincount(of_image, weights=placements**2), np.float64)
    variance = (influence**2).sum() + _missing_variance(spreads, positives)
    return float(variance) / len(positives) ** 2


def _missing_variance(spreads: Floats, positives: npt.NDArray[np.integer]) -> float:
    """What the sum of the squared influences lacks, because few positives vary less around their own mean.

    Around the mean of n, squares add up to n - 1 variances instead of n. A single positive says nothing of how others
    would vary: for it the mean variance of all classes is taken.

    Args:
        spreads: of each class, the sum of the squared differences of its positives' placements from their mean.
    """
    free = positives - 1
    pooled = spreads.sum() / max(free.sum(), 1)
    variances = np.where(free > 0, spreads / np.maximum(free, 1), pooled)
    return float((variances / positives - spreads / positives**2).sum())


def _placements(scores: npt.NDArray[np.floating], others: npt.NDArray[np.floating]) -> Floats:
    """For each score the share of `others` that is lower; equal ones count half."""
    ordered = np.sort(others)
    places: Floats = (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / 2
    return places / len(ordered)


@dataclass(frozen=True)
class Curve:
    """What a class gains when the probability from which an image counts as it is lowered, step by step.

    Attributes:
        recall: the share of the class's images that count, from 0 to 1.
        false_positives: the share of the other images that count.
        precision: of the images that count, the share that is of the class; 1 where none counts.
    """

    recall: Floats
    false_positives: Floats
    precision: Floats


def curve(scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_], most: int = 100) -> Curve | None:
    """The ROC and the precision-recall curve of one class, at no more than `most` thresholds and at the start.

    Args:
        scores: the probability of the class, (N,).
        positive: whether an image is of the class, (N,).

    Returns:
        `None` where there are no positives or no negatives.
    """
    total = int(positive.sum())
    if total in (0, len(positive)):
        return None
    order = np.argsort(-scores, kind="stable")
    steps = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # the last image of each threshold
    hits = np.cumsum(positive[order])[steps]
    if len(steps) > most:  # as many as can be seen, evenly along the length of the ROC curve
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
