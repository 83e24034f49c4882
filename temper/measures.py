"""Figures of a classifier on labelled images, from its probabilities.

Written in NumPy alone: importing scikit-learn's metrics takes seconds, more than everything computed here. The tests
compare the two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.floating]  # (N, classes), 0 to 1
Labels = npt.NDArray[np.integer]  # (N,), 0 to classes - 1
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# The least probability that log loss counts with, as in Keras: one sure mistake costs 16.1 instead of infinity.
EPSILON = 1e-7


@dataclass(frozen=True)
class PerClass:
    """The figures of each class, each an array of shape (classes,).

    Attributes:
        precision: of the images taken for the class, the share that is of it. Of a class that is never predicted: 0 by
            convention if it has images, nan if it has none.
        recall: of the class's images, the share recognized; nan without images, for there was nothing to recognize.
        f1: the harmonic mean of the two; nan without images.
        images: how many images the class has.
    """

    precision: Floats
    recall: Floats
    f1: Floats
    images: Integers

    def rows(self, classes: Sequence[str]) -> Iterator[tuple[str, str, str, str, int]]:
        """A row for each class, for a table: name, precision, recall, F1 and images; a nan becomes an empty cell."""
        columns = (self.precision.tolist(), self.recall.tolist(), self.f1.tolist(), self.images.tolist())
        for name, precision, recall, f1, images in zip(classes, *columns, strict=True):
            yield name, _cell(precision), _cell(recall), _cell(f1), images


def _cell(figure: float) -> str:
    return "" if np.isnan(figure) else f"{figure:.4f}"


def measure(probabilities: Probabilities, labels: Labels) -> dict[str, float]:
    """The figures of all images together.

    Of equal probabilities, the class that comes first counts as the more probable one.

    Returns:
        accuracy: share of the images whose label is the most probable class.
        top_5_accuracy: share whose label is among the five most probable; left out with 5 classes or fewer.
        macro_precision, macro_recall, macro_f1: the means of `per_class` over the classes that have images. A class
            without images is left out of all three, whether it is predicted or not.
        macro_over_classes: how many classes that are.
        loss: the mean of -ln(probability of the label), the probability cut at 1e-7.
        images: how many.

    Raises:
        ValueError: no images, labels that are no class, or shapes that do not belong together.
    """
    _check(probabilities, labels)
    rows = np.arange(len(labels))
    of_label = probabilities[rows, labels]
    figures = {"accuracy": float((probabilities.argmax(axis=1) == labels).mean())}
    if probabilities.shape[1] > 5:
        figures["top_5_accuracy"] = float((_ranks(probabilities, labels) < 5).mean())
    scores = per_class(probabilities, labels)
    there = scores.images > 0
    for name in ("precision", "recall", "f1"):
        figures[f"macro_{name}"] = float(getattr(scores, name)[there].mean())
    figures["macro_over_classes"] = int(there.sum())
    figures["loss"] = float(-np.log(np.maximum(of_label.astype(np.float64), EPSILON)).mean())
    return figures | {"images": len(labels)}


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
    return PerClass(precision, recall, f1, images)


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
