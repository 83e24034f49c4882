"""Pairs of nearly the same picture, by the Hamming distance of their perceptual hashes."""

from collections.abc import Iterator
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
    blocks = _blocks(len(hashes), distance)
    masks = _masks(blocks, blocks - distance)
    # NumPy sorts without the GIL: one choice of blocks a thread.
    found = ordered_map(lambda mask: _agreeing(hashes, mask, distance), masks, ahead=1)
    return np.unique(np.concatenate(list(found)), axis=0)


def _blocks(count: int, distance: int) -> int:
    """How many blocks cost least: more of them are more sorts of `count` hashes, but fewer accidental neighbours.

    Assumes uniform bits; whatever they are, only the time depends on it.
    """

    def cost(blocks: int) -> float:
        agreeing_bits = BITS * (blocks - distance) / blocks
        neighbours = count / 2**agreeing_bits
        return comb(blocks, distance) * count * (log2(count) + neighbours)

    return min(range(distance + 1, min(BITS, 4 * distance + 2) + 1), key=cost)


def _masks(blocks: int, agreeing: int) -> Iterator[np.uint64]:
    """A mask for each choice of `agreeing` blocks; neighbouring bits, which resemble each other, are dealt apart."""
    of_block = [sum(1 << bit for bit in range(block, BITS, blocks)) for block in range(blocks)]
    return (np.uint64(sum(chosen)) for chosen in combinations(of_block, agreeing))


def _agreeing(hashes: Hashes, mask: np.uint64, distance: int) -> Pairs:
    """The near pairs among those hashes that are equal under `mask`."""
    keys = hashes & mask
    order = np.argsort(keys)
    keys = keys[order]
    found = [np.empty((0, 2), np.int64)]
    # Neighbours 1, 2, 3, ... places apart in the sorted order, as long as any of them share the key.
    left = np.arange(len(keys))
    apart = 1
    while len(left := left[left < len(keys) - apart]) and len(left := left[keys[left] == keys[left + apart]]):
        first, second = order[left], order[left + apart]
        near = np.bitwise_count(hashes[first] ^ hashes[second]) <= distance
        found.append(np.sort(np.stack([first[near], second[near]], axis=1), axis=1))
        apart += 1
    return np.concatenate(found)
