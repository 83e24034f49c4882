"""Finds pairs of nearly the same picture by the Hamming distance of their perceptual hashes."""

from itertools import combinations
from math import comb, log2

import numpy as np
import numpy.typing as npt

from temper.parallel import ordered_map

BITS = 64

Hashes = npt.NDArray[np.uint64]
Pairs = npt.NDArray[np.int64]  # (pairs, 2)


def near_pairs(hashes: Hashes, distance: int) -> Pairs:
    """All pairs (i, j), i < j, of distinct `hashes` that differ in at most `distance` bits, sorted.

    The search is exact, but does not compare every hash with every other one. It divides the 64 bits into blocks. Two
    hashes that differ in at most `distance` bits agree in all but at most `distance` blocks, so they become neighbours
    when the hashes are sorted by the blocks in which they agree; each choice of blocks is tried (block-permuted tables:
    Manku, Jain, Sarma, "Detecting Near-Duplicates for Web Crawling", WWW 2007).

    Returns:
        int64 (pairs, 2).
    """
    if not distance or len(hashes) < 2:
        return np.empty((0, 2), np.int64)
    count = _blocks(len(hashes), distance)
    # Neighbouring bits are correlated, so they go into different blocks.
    blocks = [np.uint64(sum(1 << bit for bit in range(block, BITS, count))) for block in range(count)]
    choices = combinations(range(count), count - distance)
    # NumPy releases the GIL while it sorts, so each thread takes one choice of blocks.
    found = ordered_map(lambda chosen: _agreeing(hashes, blocks, chosen, distance), choices, ahead=1)
    pairs = np.concatenate(list(found))
    return pairs[np.lexsort(pairs.T[::-1])]


def _blocks(count: int, distance: int) -> int:
    """The number of blocks with the lowest estimated cost: more blocks mean more sorts, but fewer chance neighbours.

    The estimate assumes uniformly distributed bits. If they are not, the search takes longer; its result is the same.
    """

    def cost(blocks: int) -> float:
        agreeing_bits = BITS * (blocks - distance) / blocks
        neighbours = count / 2**agreeing_bits
        return comb(blocks, distance) * count * (log2(count) + neighbours)

    return min(range(distance + 1, min(BITS, 4 * distance + 2) + 1), key=cost)


def _agreeing(hashes: Hashes, blocks: list[np.uint64], chosen: tuple[int, ...], distance: int) -> Pairs:
    """The near pairs that agree in the chosen blocks, and for which these are the first blocks in which they agree.

    This way each pair is found only once, even if it agrees in many blocks. It matters for thousands of photos of
    nearly the same scene, which form millions of pairs.
    """
    mask = np.bitwise_or.reduce([blocks[block] for block in chosen])
    order = np.argsort(hashes & mask)
    hashes = hashes[order]  # a sorted copy, so that the loop reads memory sequentially
    keys = hashes & mask
    found = [np.empty((0, 2), np.int64)]
    # Compare neighbours 1, 2, 3, ... places apart in the sorted order, as long as any of them have the same key.
    left = np.arange(len(keys))
    apart = 1
    while len(left := left[left < len(keys) - apart]) and len(left := left[keys[left] == keys[left + apart]]):
        near = left[np.bitwise_count(hashes[left] ^ hashes[left + apart]) <= distance]
        for block in set(range(chosen[-1])) - set(chosen):
            near = near[((hashes[near] ^ hashes[near + apart]) & blocks[block]) != 0]
        found.append(np.sort(np.stack([order[near], order[near + apart]], axis=1), axis=1))
        apart += 1
    return np.concatenate(found)
