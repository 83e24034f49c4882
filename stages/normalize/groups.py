"""Groups of nearly equal pictures. Each group stays in one split, so no picture both trains and tests the model."""

import numpy as np
import numpy.typing as npt

from stages.normalize.near_duplicates import Pairs
from stages.normalize.splits import Pictures

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]  # (N,)


def connected_groups(pictures: Pictures, among: Mask) -> Integers:
    """The connected group of each row: rows joined by a chain of nearly equal pictures have the same number.

    Args:
        among: the rows to group, (N,); chains do not pass through other rows.

    Returns:
        int64 (N,): for each row of `among`, the lowest number in `pictures.group_of` within its connected group; -1 for
        all other rows. These numbers do not depend on the order of the rows, because `splits.group` numbers pictures by
        their contents.
    """
    present = np.zeros(len(pictures.first_of), bool)
    present[pictures.group_of[among]] = True
    pairs = pictures.pairs[present[pictures.pairs].all(axis=1)]
    return np.where(among, _components(len(present), pairs)[pictures.group_of], -1)


def _components(count: int, pairs: Pairs) -> Integers:
    """The connected components of a graph with `count` nodes: for each node, the lowest node of its component.

    Each round joins every component to its lowest neighbour and then shortens all paths to one step (Shiloach and
    Vishkin, "An O(log n) parallel connectivity algorithm", 1982).
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
