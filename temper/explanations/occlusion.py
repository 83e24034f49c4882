"""Occlusion maps: how much each part of an image speaks for the predicted class, found by hiding that part.

The method is from Zeiler and Fergus 2014 (arXiv:1311.2901). It needs only predictions, so it works for every backbone
and head, and on every backend of Keras. Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) needs gradients, which each
backend computes in its own way, and a last convolutional layer, which transformers do not have. Class activation maps
(Zhou et al. 2016, arXiv:1512.04150) need a head of a single layer. Occlusion costs `GRID`**2 predictions per image, and
one for the image itself.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from temper.measures.calibration import Floats, Probabilities

GRID = 7  # cells per column and per row
WIDTH = 2.0  # the side of the hidden square in cells: a smaller square hides no important part completely

Images = npt.NDArray[np.uint8]


def hidden(image: Images, cell: int) -> Images:
    """A copy of an image, uint8 (height, width, 3), with a square around a cell filled with the image's mean colour.

    The mean colour is the least conspicuous one; a black square could be taken for an object.

    Args:
        cell: the number of the cell, 0 to GRID * GRID - 1, row by row.
    """
    found, (row, column) = image.copy(), divmod(cell, GRID)
    rows, columns = (_around(place, side) for place, side in zip((row, column), image.shape[:2], strict=True))
    found[rows, columns] = image.mean(axis=(0, 1)).round().astype(np.uint8)
    return found


def _around(place: int, side: int) -> slice:
    """The pixels that are hidden around a cell, along one side of the image."""
    middle = place + 0.5
    start, end = (round((middle + sign * WIDTH / 2) * side / GRID) for sign in (-1, 1))
    return slice(max(start, 0), min(end, side))


def occlusion_map(predict: Callable[[Images], Probabilities], image: Images) -> npt.NDArray[np.float32]:
    """For each cell, how much the log-odds of the predicted class fall when the square around it is hidden.

    It uses log-odds, because a probability of 0.9999 hardly falls whatever is hidden.

    Args:
        predict: returns the probabilities, (n, classes), of images, uint8 (GRID * GRID + 1, height, width, 3).
        image: uint8 (height, width, 3).

    Returns:
        float32 (GRID, GRID). Above 0: the part speaks for the predicted class; below 0: against it.
    """
    shown = np.stack([image, *(hidden(image, cell) for cell in range(GRID * GRID))])
    probabilities = predict(shown)
    odds = log_odds(probabilities, int(probabilities[0].argmax()))
    fall: npt.NDArray[np.float32] = (odds[0] - odds[1:]).astype(np.float32).reshape(GRID, GRID)
    return fall


def log_odds(probabilities: Probabilities, number: int) -> Floats:
    """ln(p / (1 - p)) of class `number`, (N,). 1 - p is the sum of the others, which is more precise near 0."""
    of_class = probabilities[:, number].astype(np.float64)
    others = np.delete(probabilities, number, axis=1).sum(axis=1, dtype=np.float64)
    least = np.finfo(np.float32).tiny
    odds: Floats = np.log(np.maximum(of_class, least)) - np.log(np.maximum(others, least))
    return odds
