"""Finds labels that are probably wrong, by confident learning.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR 70, 2021,
arXiv:1911.00068): the images off the diagonal of the confident joint. It is implemented here because it takes only ten
lines, and cleanlab, the authors' library, is under the AGPL.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class LabelError:
    """An image whose label is probably wrong.

    Attributes:
        row: the number of the image.
        suggested: the number of the class that it probably belongs to.
        confidence: the predicted probability of that class, 0 to 1.
    """

    row: int
    suggested: int
    confidence: float


def probable_label_errors(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> list[LabelError]:
    """The images that look like another class than their label.

    Each class has a threshold: its average predicted probability on the images labelled with it. An image looks like a
    class if its probability reaches that threshold, so classes of which the classifier is never certain have low
    thresholds. If an image looks like several classes, the most probable one counts.

    Args:
        probabilities: (N, classes), each row by a classifier that was not trained on the image.
        labels: the class of each image, (N,).

    Returns:
        The errors, ordered by how much more probable the suggested class is than the label, largest difference first.
    """
    rows, classes = np.arange(len(labels)), probabilities.shape[1]
    images = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, weights=probabilities[rows, labels], minlength=classes)
    thresholds = np.where(images > 0, sums / np.maximum(images, 1), np.inf)
    sure = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = sure.argmax(axis=1)
    wrong = np.flatnonzero((sure[rows, suggested] >= 0) & (suggested != labels))
    margins = probabilities[wrong, suggested[wrong]] - probabilities[wrong, labels[wrong]]
    return [
        LabelError(int(row), int(suggested[row]), float(probabilities[row, suggested[row]]))
        for row in wrong[np.argsort(-margins, kind="stable")]
    ]
