"""Metrics of a classifier on labelled images, from its probabilities.

Written in NumPy alone: importing scikit-learn's metrics takes seconds, longer than everything computed here. The tests
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

TOP = (3, 5)  # the k of top-k accuracy; only computed if there are more than k classes


@dataclass(frozen=True)
class PerClass:
    """The figures of each class, each an array of shape (classes,).

    Attributes:
        precision: of the images predicted as the class, the share that has it. For a class that is never predicted: 0
            by convention if it has images, nan if it has none.
        recall: of the class's images, the share predicted correctly; nan if the class has no images.
        f1: the harmonic mean of the two; nan if the class has no images.
        images: how many images the class has.
        guesses: how many images were predicted as the class.
        right: how many of the class's images were predicted correctly.
    """

    precision: Floats
    recall: Floats
    f1: Floats
    images: Integers
    guesses: Integers
    right: Integers


def measure(probabilities: Probabilities, labels: Labels) -> dict[str, float]:
    """The figures over all images.

    If classes have equal probabilities, the one with the lower number counts as the more probable one.

    Returns:
        accuracy: share of the images whose label is the most probable class.
        top_3_accuracy, top_5_accuracy: share whose label is among the 3 or 5 most probable classes; left out if there
            are not more classes than that.
        macro_precision, macro_recall, macro_f1: the means of `per_class` over the classes that have images. A class
            without images is left out of all three, whether it is predicted or not.
        weighted_precision, weighted_f1: the means weighted by each class's number of images. The weighted recall is
            the accuracy.
        macro_over_classes: how many classes have images.
        macro_auc: the mean area under the ROC curve of each of these classes against the rest; left out if all images
            are of one class.
        loss: the mean of -ln(probability of the label), with the probability clipped at 1e-7.
        calibration_error: the expected calibration error, see `calibration.calibration_error`.
        images: how many images were measured.

    Raises:
        ValueError: there are no images, a label is out of range, a probability is nan, or the shapes do not match.
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
    """Macro and weighted averages of precision, recall and F1, from counts that need not be whole numbers.

    Args:
        right: for each class, the number of its images that were predicted correctly, (..., classes).
        images: for each class, the number of its images, (..., classes).
        guesses: for each class, the number of images that were predicted as it, (..., classes).

    Returns:
        macro_precision, macro_recall, macro_f1, weighted_precision and weighted_f1, each (...). Without any image: 0.
    """
    every = images.sum(axis=-1)
    counted = np.maximum((images > 0).sum(axis=-1), 1)
    # A class without images has no correct ones, so all three figures are 0 and add nothing.
    precision = right / np.maximum(guesses, _TINY)
    recall = right / np.maximum(images, _TINY)
    f1 = 2 * right / np.maximum(images + guesses, _TINY)
    found = {"precision": precision, "recall": recall, "f1": f1}
    means = {f"macro_{name}": of.sum(axis=-1) / counted for name, of in found.items()}
    return means | {
        f"weighted_{name}": (found[name] * images).sum(axis=-1) / np.maximum(every, _TINY)
        for name in ("precision", "f1")
    }


_TINY = 1e-9  # smaller than any count; avoids division by zero


def per_class(probabilities: Probabilities, labels: Labels) -> PerClass:
    """The figures of each class. An image is predicted as its most probable class, the first one if several are equal.

    Raises:
        ValueError: as in `measure`.
    """
    _check(probabilities, labels)
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    right = np.bincount(labels[predicted == labels], minlength=classes)
    images, guesses = np.bincount(labels, minlength=classes), np.bincount(predicted, minlength=classes)
    absent = np.where(images > 0, 0.0, np.nan)  # added to a figure: nan for classes without images
    precision = np.where(guesses > 0, right / np.maximum(guesses, 1), absent)
    recall = right / np.maximum(images, 1) + absent
    f1 = 2 * right / np.maximum(images + guesses, 1) + absent
    return PerClass(precision, recall, f1, images, guesses, right)


def _ranks(probabilities: Probabilities, labels: Labels) -> Integers:
    """For each image, how many classes rank before its label: more probable ones, and equal ones with a lower number.

    The label of an image has rank 0 if, and only if, `argmax` returns it.

    Returns:
        int64 (N,), 0 to classes - 1.
    """
    of_label = probabilities[np.arange(len(labels)), labels][:, None]
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    ranks: Integers = ((probabilities > of_label) | ((probabilities == of_label) & before)).sum(axis=1)
    return ranks


def _check(probabilities: Probabilities, labels: Labels) -> None:
    """Raises a ValueError for wrong inputs, which NumPy would broadcast or index from the end."""
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
