"""Figures of a classifier on labelled images, from its probabilities.

Written in NumPy alone: importing scikit-learn's metrics takes seconds, more than everything computed here. The tests
compare the two.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from temper.measures.calibration import Floats, Labels, Probabilities, calibration_error, log_losses
from temper.measures.ranking import macro_auc

Integers = npt.NDArray[np.int64]
AnyFloats = npt.NDArray[np.floating[Any]]

TOP = (3, 5)  # the k of top-k accuracy, where there are more classes than that


@dataclass(frozen=True)
class PerClass:
    """The figures of each class, each an array of shape (classes,).

    Attributes:
        precision: of the images taken for the class, the share that is of it. Of a class that is never predicted: 0 by
            convention if it has images, nan if it has none.
        recall: of the class's images, the share recognized; nan without images, for there was nothing to recognize.
        f1: the harmonic mean of the two; nan without images.
        images: how many images the class has.
        guesses: how many images were taken for the class.
        right: how many of its images were recognized.
    """

    precision: Floats
    recall: Floats
    f1: Floats
    images: Integers
    guesses: Integers
    right: Integers


def measure(probabilities: Probabilities, labels: Labels) -> dict[str, float]:
    """The figures of all images together.

    Of equal probabilities, the class that comes first counts as the more probable one.

    Returns:
        accuracy: share of the images whose label is the most probable class.
        top_3_accuracy, top_5_accuracy: share whose label is among the 3 or 5 most probable; left out where there are
            no more classes than that.
        macro_precision, macro_recall, macro_f1: the means of `per_class` over the classes that have images. A class
            without images is left out of all three, whether it is predicted or not.
        weighted_precision, weighted_f1: the means weighted by the images of each class. The weighted recall is the
            accuracy.
        macro_over_classes: how many classes have images.
        macro_auc: the mean area under the ROC curve of each of these classes against the rest; left out where all
            images are of one class.
        loss: the mean of -ln(probability of the label), the probability cut at 1e-7.
        calibration_error: the expected calibration error, see `calibration.calibration_error`.
        images: how many.

    Raises:
        ValueError: no images, labels that are no class, or shapes that do not belong together.
    """
    _check(probabilities, labels)
    figures = {"accuracy": float((probabilities.argmax(axis=1) == labels).mean())}
    ranks = _ranks(probabilities, labels)
    for k in TOP:
        if probabilities.shape[1] > k:
            figures[f"top_{k}_accuracy"] = float((ranks < k).mean())
    scores = per_class(probabilities, labels)
    of_all = averages(scores.right, scores.images, scores.guesses)
    figures |= {name: float(value) for name, value in of_all.items()}
    figures["macro_over_classes"] = int((scores.images > 0).sum())
    auc = macro_auc(probabilities, labels)
    if auc is not None:
        figures["macro_auc"] = auc.value
    figures["loss"] = float(log_losses(probabilities, labels).mean())
    figures["calibration_error"] = calibration_error(probabilities, labels)
    return figures | {"images": len(labels)}


def averages(right: npt.NDArray[Any], images: npt.NDArray[Any], guesses: npt.NDArray[Any]) -> dict[str, AnyFloats]:
    """Precision, recall and F1 of all classes together, from counts that need not be whole.

    Args:
        right: of each class the images that were recognized, (..., classes).
        images: of each class its images, at least as many.
        guesses: of each class the images that were taken for it.

    Returns:
        macro_precision, macro_recall, macro_f1, weighted_precision and weighted_f1, each (...). Without any image: 0.
    """
    every = images.sum(axis=-1)
    counted = np.maximum((images > 0).sum(axis=-1), 1)
    # Of a class without images none is right, so all three are 0 and add nothing.
    precision = right / np.maximum(guesses, _TINY)
    recall = right / np.maximum(images, _TINY)
    f1 = 2 * right / np.maximum(images + guesses, _TINY)
    found = {"precision": precision, "recall": recall, "f1": f1}
    means = {f"macro_{name}": of.sum(axis=-1) / counted for name, of in found.items()}
    return means | {
        f"weighted_{name}": (found[name] * images).sum(axis=-1) / np.maximum(every, _TINY)
        for name in ("precision", "f1")
    }


_TINY = 1e-9  # less than any count


def per_class(probabilities: Probabilities, labels: Labels) -> PerClass:
    """The figures of each class; an image is predicted to be of its most probable class, of equal ones the first.

    Raises:
        ValueError: as `measure`.
    """
    _check(probabilities, labels)
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    right = np.bincount(labels[predicted == labels], minlength=classes)
    images, guesses = np.bincount(labels, minlength=classes), np.bincount(predicted, minlength=classes)
    absent = np.where(images > 0, 0.0, np.nan)  # nan makes what it is added to nan
    precision = np.where(guesses > 0, right / np.maximum(guesses, 1), absent)
    recall = right / np.maximum(images, 1) + absent
    f1 = 2 * right / np.maximum(images + guesses, 1) + absent
    return PerClass(precision, recall, f1, images, guesses, right)


def _ranks(probabilities: Probabilities, labels: Labels) -> Integers:
    """How many classes come before each image's label: the more probable ones, and of equal ones those of lower number.

    A label of rank 0 is what `argmax` gives.

    Returns:
        int64 (N,), 0 to classes - 1.
    """
    of_label = probabilities[np.arange(len(labels)), labels][:, None]
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    ranks: Integers = ((probabilities > of_label) | ((probabilities == of_label) & before)).sum(axis=1)
    return ranks


def _check(probabilities: Probabilities, labels: Labels) -> None:
    """Raises a ValueError for what cannot be measured; NumPy would broadcast it or take labels from the end."""
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            "expected: probabilities (N, classes) and labels (N,) of at least one image, received: "
            f"{probabilities.shape} and {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(
            f"expected: labels from 0 to {probabilities.shape[1] - 1}, received: {labels.min()} to {labels.max()}"
        )
    if np.isnan(probabilities).any():
        raise ValueError(
            f"expected: probabilities, received: nan for {np.isnan(probabilities).any(axis=1).sum()} images"
        )
