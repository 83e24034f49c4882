"""Which labels are probably wrong, by confident learning.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR 70, 2021,
arXiv:1911.00068): the images off the diagonal of the confident joint. Written here, because it takes ten lines, and
cleanlab, the authors' library, is under the AGPL.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class LabelError:
    """An image whose label is probably wrong.

    Attributes:
        row: which image.
        suggested: the class that it is probably of.
        confidence: the probability of that class, 0 to 1.
    """

    row: int
    suggested: int
    confidence: float


def probable_label_errors(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> list[LabelError]:
    """The images that look like another class than their label, the surest first.

    An image looks like a class if it is as probable as that class is on average for the images labelled with it. So a
    class that the classifier is never sure of needs less to be suggested. Of several such classes the most probable
    counts.

    Args:
        probabilities: (N, classes), by classifiers that did not see the image.
        labels: (N,).

    Returns:
        in the order of how much more probable the suggested class is than the label, the greatest difference first.
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
