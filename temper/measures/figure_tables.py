"""The CSV tables about the fine-tuned model on the test images; each is a list of column names and a list of rows."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from temper.measures.calibration import BINS, Floats, reliability
from temper.measures.figures import Measured
from temper.measures.intervals import class_intervals, wilson_bounds
from temper.measures.metrics import per_class
from temper.measures.ranking import curve

Table = tuple[list[str], list[Sequence[object]]]

MOST_CURVES = 10  # classes; more lines cannot be told apart


def class_table(test: Measured, classes: Sequence[str]) -> Table:
    """Precision, recall and F1 of each class with their 95 % intervals, and the counts behind them.

    A cell is empty if there are no images to measure on.
    """
    scores = per_class(test.probabilities, test.labels)
    columns = ["class_name"]
    figures: list[Floats] = []
    for name, bounds in class_intervals(scores).items():
        columns += [name, f"{name}_low", f"{name}_high"]
        figures += [getattr(scores, name), *bounds]
    counts = (scores.images.tolist(), scores.guesses.tolist(), scores.right.tolist())
    cells = [["" if np.isnan(value) else f"{value:.4f}" for value in of.tolist()] for of in figures]
    return [*columns, "images", "guesses", "right"], [*zip(classes, *cells, *counts, strict=True)]


def confusion_table(test: Measured, classes: Sequence[str]) -> Table:
    """The actual and the predicted class of each image."""
    guesses = test.probabilities.argmax(axis=1).tolist()
    rows = [(classes[label], classes[guess]) for label, guess in zip(test.labels.tolist(), guesses, strict=True)]
    return ["actual", "predicted"], [*rows]


def reliability_table(test: Measured, classes: Sequence[str]) -> Table:
    """Accuracy by confidence, before and after temperature scaling; only bins that have images."""
    rows: list[Sequence[object]] = []
    for said, probabilities in (("as predicted", test.probabilities), ("scaled", test.scaled)):
        found = reliability(probabilities, test.labels)
        low, high = wilson_bounds(found.accuracy, found.images)
        for place in np.flatnonzero(found.images).tolist():
            figures = (of[place] for of in (found.confidence, found.accuracy, low, high))
            edges = (f"{edge / BINS:.4f}" for edge in (place, place + 1))
            rows.append((said, *edges, int(found.images[place]), *(f"{figure:.4f}" for figure in figures)))
    return ["probabilities", "above", "up_to", "images", "confidence", "accuracy", "low", "high"], rows


def curve_table(test: Measured, classes: Sequence[str]) -> Table:
    """The points of each class's ROC and precision-recall curves; no rows for more than MOST_CURVES classes."""
    columns = ["class_name", "recall", "false_positives", "precision"]
    return columns, [*_points(test, classes)] if len(classes) <= MOST_CURVES else []


def _points(test: Measured, classes: Sequence[str]) -> Iterator[Sequence[object]]:
    for number, name in enumerate(classes):
        found = curve(test.probabilities[:, number], test.labels == number)
        if found is not None:
            points = zip(found.recall.tolist(), found.false_positives.tolist(), found.precision.tolist(), strict=True)
            yield from ((name, *(f"{value:.4f}" for value in point)) for point in points)


TABLES: dict[str, Callable[[Measured, Sequence[str]], Table]] = {
    "per_class.csv": class_table,
    "confusion.csv": confusion_table,
    "reliability.csv": reliability_table,
    "curves.csv": curve_table,
}
