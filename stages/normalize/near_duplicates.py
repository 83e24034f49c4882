"""Pairs of nearly the same picture, by the Hamming distance of their perceptual hashes."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

BITS = 64


def near_pairs(hashes: npt.NDArray[np.uint64], distance: int) -> npt.NDArray[np.int64]:
    """All pairs (i, j), i < j, of distinct `hashes` that differ in at most `distance` bits, sorted.

    Exact, without comparing all with all: of `distance` + 1 bands of bits, two such hashes agree in one at least
    (the pigeonhole of multi-index hashing: Norouzi, Punjani, Fleet, arXiv:1307.2982).

    Returns:
        int64 (pairs, 2).
    """
    edges = np.linspace(0, BITS, distance + 2).astype(int)
    found = [np.empty((0, 2), np.int64)]
    for low, high in pairwise(edges):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        # Neighbours 1, 2, 3, ... places apart in the sorted order, as long as any of them share the band.
        for apart in range(1, len(hashes)):
            left, right = order[:-apart], order[apart:]
            same = band[left] == band[right]
            if not same.any():
                break
            left, right = left[same], right[same]
            near = np.bitwise_count(hashes[left] ^ hashes[right]) <= distance
            found.append(np.stack([left[near], right[near]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0)
