"""Measures the time and memory of `normalize` on synthetic metadata: 665,803 rows of 2,451 classes, and a tenth of it.

python -m benchmarks.normalize
python -m benchmarks.normalize --rows 665803 6658030
"""

import argparse
import hashlib
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from temper import raw
from temper.raw import RAW
from tests.toys.workspace import make, peak_memory_of_children, run

ROWS_A_PART = 50_000
CLASSES = 2_451


def write_metadata(folder: Path, rows: int, random: np.random.Generator) -> None:
    """A raw table without pictures: long-tailed classes and random hashes, with a near-duplicate in every 50 rows."""
    folder.mkdir(parents=True)
    share = 1 / np.arange(1, CLASSES + 1)
    classes = random.choice(CLASSES, rows, p=share / share.sum())
    hashes = random.integers(0, 2**64, rows, dtype=np.uint64)
    near = random.choice(rows, rows // 50, replace=False)
    hashes[near] = hashes[random.integers(0, rows, len(near))] ^ (
        np.uint64(1) << random.integers(0, 64, len(near), np.uint64)
    )
    for part, start in enumerate(range(0, rows, ROWS_A_PART)):
        numbers = range(start, min(rows, start + ROWS_A_PART))
        columns = {
            "path": [f"https://images.example.org/{number}/original.jpg" for number in numbers],
            "label": [f"Genus species {classes[number]}" for number in numbers],
            "image": [b""] * len(numbers),
            "sha256": [hashlib.sha256(str(number).encode()).hexdigest() for number in numbers],
            "width": [500] * len(numbers),
            "height": [375] * len(numbers),
            "phash": hashes[start : start + len(numbers)],
        }
        empty = {name: pa.nulls(len(numbers), RAW.field(name).type) for name in RAW.names if name not in columns}
        table = pa.table({name: {**columns, **empty}[name] for name in RAW.names}, schema=RAW)
        pq.write_table(table, folder / f"part-{part:05}.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[66_580, 665_803])
    seconds = []
    for rows in parser.parse_args().rows:
        with tempfile.TemporaryDirectory() as folder:
            workspace = Path(folder)
            # All images of a rare class may fall into the test split, at which normalize would stop.
            make(workspace, "digits", normalize__near_duplicates=4, normalize__min_per_class=20)
            write_metadata(workspace / raw.FOLDER / "digits", rows, np.random.default_rng(0))
            start = time.perf_counter()
            run(workspace, f"{sys.executable} -m stages.normalize")
            seconds.append(time.perf_counter() - start)
            print(
                f"{rows} rows: {seconds[-1]:.1f} s, {peak_memory_of_children():.0f} MB at the peak of any so far",
                flush=True,
            )
    if len(seconds) > 1:
        print(f"the last against the first: {seconds[-1] / seconds[0]:.1f} times the time")


if __name__ == "__main__":
    main()
