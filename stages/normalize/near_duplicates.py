"""Pairs of nearly the same picture, by the Hamming distance of their perceptual hashes."""

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

    Exact, without comparing all with all. The bits are dealt into blocks; two such hashes differ in at most
    `distance` blocks and agree in all others, so that they meet when the hashes are sorted by the right blocks
    (block-permuted tables: Manku, Jain, Sarma, "Detecting Near-Duplicates for Web Crawling", WWW 2007).

    Returns:
        int64 (pairs, 2).
    """
    if not distance or len(hashes) < 2:
        return np.empty((0, 2), np.int64)
    count = _blocks(len(hashes), distance)
    # Neighbouring bits, which resemble each other, are dealt into different blocks.
    blocks = [np.uint64(sum(1 << bit for bit in range(block, BITS, count))) for block in range(count)]
    choices = combinations(range(count), count - distance)
    # NumPy sorts without the GIL: one choice of blocks a thread.
    found = ordered_map(lambda chosen: _agreeing(hashes, blocks, chosen, distance), choices, ahead=1)
    pairs = np.concatenate(list(found))
    return pairs[np.lexsort(pairs.T[::-1])]


def _blocks(count: int, distance: int) -> int:
    """How many blocks cost least: more of them are more sorts of `count` hashes, but fewer accidental neighbours.

    Assumes uniform bits; whatever they are, only the time depends on it.
    """

    def cost(blocks: int) -> float:
        agreeing_bits = BITS * (blocks - distance) / blocks
        neighbours = count / 2**agreeing_bits
        return comb(blocks, distance) * count * (log2(count) + neighbours)

    return min(range(distance + 1, min(BITS, 4 * distance + 2) + 1), key=cost)


def _agreeing(hashes: Hashes, blocks: list[np.uint64], chosen: tuple[int, ...], distance: int) -> Pairs:
    """The near pairs that agree in the chosen blocks, and for which these are the first blocks in which they agree.

    So a pair is found once, although it may agree in many blocks: photos by the thousand of nearly one scene
    have millions of pairs.
    """
    mask = np.bitwise_or.reduce([blocks[block] for block in chosen])
    order = np.argsort(hashes & mask)
    hashes = hashes[order]  # from here on read in order, not all over memory
    keys = hashes & mask
    found = [np.empty((0, 2), np.int64)]
    # Neighbours 1, 2, 3, ... places apart in the sorted order, as long as any of them share the key.
    left = np.arange(len(keys))
    apart = 1
    while len(left := left[left < len(keys) - apart]) and len(left := left[keys[left] == keys[left + apart]]):
        near = left[np.bitwise_count(hashes[left] ^ hashes[left + apart]) <= distance]
        for block in set(range(chosen[-1])) - set(chosen):
            near = near[((hashes[near] ^ hashes[near + apart]) & blocks[block]) != 0]
        found.append(np.sort(np.stack([order[near], order[near + apart]], axis=1), axis=1))
        apart += 1
    return np.concatenate(found)
