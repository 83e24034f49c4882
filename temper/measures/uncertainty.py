"""Which images a classifier is least certain about. Probabilities are (N, classes) everywhere in this module."""

import numpy as np
import numpy.typing as npt

from temper.measures.calibration import Floats, Probabilities


def margins(probabilities: Probabilities) -> Floats:
    """The probability of the most probable class minus that of the second, (N,), 0 to 1: smaller is less certain.

    Unlike the highest probability alone, it distinguishes two rival classes from a probability that is spread over many
    classes. With a single class, it is the probability of that class.
    """
    with_none = np.pad(probabilities.astype(np.float64), ((0, 0), (2, 0)))  # so that there are always two
    highest = np.partition(with_none, -2, axis=1)[:, -2:]
    between: Floats = highest[:, 1] - highest[:, 0]
    return between


def worth_labelling(probabilities: Probabilities) -> npt.NDArray[np.intp]:
    """Orders all images by how much their labels would teach the model: the least certain first, spread over classes.

    By margin alone (margin sampling, Scheffer et al. 2001, doi:10.1007/3-540-44816-0_31), a single confused pair of
    classes would fill the top of the list. So the margin is multiplied by the square root of the image's place, 1, 2,
    ..., among the images with the same predicted class: each image of a class makes the next one less urgent. An image
    of which the model is certain still comes late, and within a class the least certain image still comes first.

    Returns:
        the rows in that order, (N,).
    """
    if not len(probabilities):
        return np.empty(0, np.intp)
    certain, guesses = margins(probabilities), probabilities.argmax(axis=1)
    place = np.empty(len(probabilities))
    for guess in np.unique(guesses):
        rows = np.flatnonzero(guesses == guess)
        place[rows[np.argsort(certain[rows], kind="stable")]] = np.arange(1, len(rows) + 1)
    order: npt.NDArray[np.intp] = np.lexsort((certain, certain * np.sqrt(place)))
    return order
