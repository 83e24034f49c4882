"""Groups images that show the same picture. They share a fold, so no head is tested on a picture it was trained on."""

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

AUDIT = Path("data/audit")
PAIRS = ("near_duplicates.csv", "duplicates.csv", "conflicts.csv")


def read_groups(table: pa.Table) -> npt.NDArray[np.int64]:
    """The group of each image: images joined by a chain of repeated pictures have the same number.

    The pairs of repeated pictures come from `normalize`, which lists at most 100,000 of each kind in data/audit/.

    Args:
        table: rows of images.parquet.

    Returns:
        int64 (N,).
    """
    places = zip(*(table[name].to_pylist() for name in ("source", "part", "row")), strict=True)
    numbers = {place: number for number, place in enumerate(places)}
    pairs = [pair for name in PAIRS for pair in _pairs(AUDIT / name, numbers)]
    left, right = np.array(pairs, np.int64).reshape(-1, 2).T
    joined = coo_array((np.ones(len(left), bool), (left, right)), shape=(len(table), len(table)))
    groups: npt.NDArray[np.int64] = connected_components(joined, directed=False)[1].astype(np.int64)
    return groups


def _pairs(path: Path, numbers: dict[tuple[str, int, int], int]) -> list[tuple[int, int]]:
    """The pairs of an audit file of which both images are in `numbers`."""
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            one, other = (
                numbers.get((line[f"{side}source"], int(line[f"{side}part"]), int(line[f"{side}row"])))
                for side in ("", "other_")
            )
            if one is not None and other is not None:
                found.append((one, other))
    return found
