"""Groups of nearly equal pictures. Each stays in one split, so that no picture both trains and tests the model."""

import numpy as np
import numpy.typing as npt

from stages.normalize.near_duplicates import Pairs
from stages.normalize.splits import Pictures

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]  # (N,)


def connected_groups(pictures: Pictures, among: Mask) -> Integers:
    """The connected group of each row: rows that a chain of nearly equal pictures joins have the same number.

    Args:
        among: the rows that count; a chain passes through no others.

    Returns:
        int64 (N,): the lowest of `pictures.group_of` in the connected group, and -1 for the other rows. `group` numbers
        pictures in the order of their contents, therefore the order of the rows changes no number.
    """
    present = np.zeros(len(pictures.first_of), bool)
    present[pictures.group_of[among]] = True
    pairs = pictures.pairs[present[pictures.pairs].all(axis=1)]
    return np.where(among, _components(len(present), pairs)[pictures.group_of], -1)


def _components(count: int, pairs: Pairs) -> Integers:
    """The connected components of a graph of `count` nodes: of each node, the lowest node of its component.

    Each round joins every component to the lowest of its neighbours, and then shortens all paths to one step, as
    Shiloach and Vishkin do ("An O(log n) parallel connectivity algorithm", 1982).
    """
    lowest = np.arange(count)
    while True:
        ends = lowest[pairs]
        pairs, ends = pairs[ends[:, 0] != ends[:, 1]], ends[ends[:, 0] != ends[:, 1]]
        if not len(pairs):
            return lowest
        np.minimum.at(lowest, ends.max(axis=1), ends.min(axis=1))
        while (lowest != (further := lowest[lowest])).any():
            lowest = further
