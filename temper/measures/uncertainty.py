"""Which images a classifier is least certain of, from its probabilities, (N, classes) everywhere in this module."""

import numpy as np
import numpy.typing as npt

from temper.measures.calibration import Floats, Probabilities


def margins(probabilities: Probabilities) -> Floats:
    """How much more probable the first class is than the second, (N,), 0 to 1: the smaller, the less certain.

    Unlike the probability of the first class alone, it tells two rivals from a probability spread over many classes.
    With a single class it is that class's probability.
    """
    with_none = np.pad(probabilities.astype(np.float64), ((0, 0), (2, 0)))  # so that there are always two
    highest = np.partition(with_none, -2, axis=1)[:, -2:]
    between: Floats = highest[:, 1] - highest[:, 0]
    return between


def worth_labelling(probabilities: Probabilities) -> npt.NDArray[np.intp]:
    """All images, those first whose labels would teach the model most: the least certain, spread over the classes.

    By margin alone, a single confused pair of classes would fill the top of the list (margin sampling, Scheffer et al.
    2001, doi:10.1007/3-540-44816-0_31). So the margin is multiplied by the root of the image's place, 1, 2, ...,
    among those with the same predicted class: each image of a class makes the next one of it less urgent. An image of
    which the model is certain comes late all the same, and within a class the least certain stays first.

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
