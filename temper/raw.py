"""The raw tables: one for each named source, data/raw/NAME/part-00000.parquet, ..., every published image a row.

Parts have about 16 MB and are written and read as a stream, at most as much at once; the metadata columns are read
without the image bytes. Where a part ends is decided by its images alone (temper/cuts.py): an image that is added
changes the part that it falls into, and the others keep their bytes.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from temper.base.errors import TemperError
from temper.cuts import FILE_BYTES, ends_file

FOLDER = "data/raw"  # below it, a folder for each named source

RAW = pa.schema(
    [
        ("path", pa.string()),  # as published
        ("label", pa.string()),  # as published; null: unlabelled
        ("split", pa.string()),  # as published; null: none
        ("image", pa.binary()),  # the encoded bytes, untouched
        ("sha256", pa.string()),
        ("width", pa.int32()),  # of the upright image, null where there is a problem
        ("height", pa.int32()),
        ("phash", pa.uint64()),
        ("problem", pa.string()),  # null, or why the bytes are no usable image
        # What only some sources publish, null elsewhere:
        ("coarse", pa.string()),  # a second, coarser label
        ("licence", pa.string()),  # of this photo
        ("x1", pa.float32()),  # the main object's box, in pixels of the upright image
        ("y1", pa.float32()),
        ("x2", pa.float32()),
        ("y2", pa.float32()),
    ]
)
METADATA = [name for name in RAW.names if name != "image"]

ROW_GROUP_BYTES = 16 * 2**20


class RawWriter:
    """Writes the raw table into a folder, part after part, holding one row group in memory."""

    def __init__(self, folder: Path, part_bytes: int = FILE_BYTES, row_group_bytes: int = ROW_GROUP_BYTES) -> None:
        self._folder, self._part_bytes, self._row_group_bytes = folder, part_bytes, row_group_bytes
        self._rows: list[dict[str, Any]] = []
        self._pending = self._written = self._parts = 0
        self._part: pq.ParquetWriter | None = None

    def append(self, row: dict[str, Any]) -> None:
        """Adds one row, a value for each column of RAW."""
        self._rows.append(row)
        self._pending += len(row["image"])
        length = self._written + self._pending
        if ends_file(row["sha256"], len(row["image"]), length, self._part_bytes):
            self._flush()
            self._close_part()
        elif self._pending >= self._row_group_bytes:
            self._flush()

    def _flush(self) -> None:
        if self._part is None:
            # Photos are compressed already: only the other columns gain from it.
            compression = dict.fromkeys(METADATA, "zstd") | {"image": "none"}
            path = self._folder / f"part-{self._parts:05}.parquet"
            self._part = pq.ParquetWriter(path, RAW, compression=compression, use_dictionary=["label", "split"])
            self._parts += 1
        self._part.write_table(pa.Table.from_pylist(self._rows, schema=RAW))
        self._written += self._pending
        self._rows, self._pending = [], 0

    def _close_part(self) -> None:
        if self._part is not None:
            self._part.close()
        self._part, self._written = None, 0

    def __enter__(self) -> "RawWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None and (self._rows or not self._parts):
            self._flush()
        self._close_part()


def sources(folder: str | Path = FOLDER) -> list[Path]:
    """The folders of raw tables, one for each named source that was fetched."""
    return sorted(path.parent for path in Path(folder).glob("*/part-00000.parquet"))


def parts(source: str, folder: str | Path = FOLDER) -> list[Path]:
    """The parts of a source's raw table, in order."""
    found = sorted((Path(folder) / source).glob("part-*.parquet"))
    if not found:
        raise TemperError(f"{folder}/{source}: expected part-00000.parquet, ..., found none; run dvc repro")
    return found


def read_metadata(sources: Sequence[str], folder: str | Path = FOLDER) -> pa.Table:
    """The raw tables of some sources without their image bytes, in the order of `sources`.

    Three columns say where each row's bytes are: `source`, `part` and `row`.
    """
    found: list[pa.Table] = []
    for source in sources:
        for number, path in enumerate(parts(source, folder)):
            table = pq.read_table(path, columns=METADATA)
            for name, values in (
                ("source", pa.DictionaryArray.from_arrays(np.zeros(len(table), np.int32), [source]).cast(pa.string())),
                ("part", pa.array(np.full(len(table), number, np.int32))),
                ("row", pa.array(np.arange(len(table), dtype=np.int32))),
            ):
                table = table.append_column(name, values)
            found.append(table)
    return pa.concat_tables(found)


def read_metadata_of(wanted: pa.Table, folder: str | Path = FOLDER) -> pa.Table:
    """The metadata of the raw rows that `wanted` names by its columns `source`, `part` and `row`, in its order."""
    found = []
    for source, part, rows in _by_part(wanted):
        found.append(pq.read_table(parts(source, folder)[part], columns=METADATA).take(pa.array(rows)))
    return pa.concat_tables(found) if found else RAW.empty_table().select(METADATA)


def stream_images(wanted: pa.Table, folder: str | Path = FOLDER) -> Iterator[bytes]:
    """The encoded bytes of the rows of `wanted`, whose rows of one part stand together, in the order of the part.

    Holds one row group in memory and skips those that hold nothing wanted.
    """
    for source, number, rows in _by_part(wanted):
        with pq.ParquetFile(parts(source, folder)[number]) as part:
            start = 0
            for group in range(part.num_row_groups):
                end = start + part.metadata.row_group(group).num_rows
                inside = rows[(rows >= start) & (rows < end)] - start
                if len(inside):
                    images = part.read_row_group(group, columns=["image"])["image"]
                    for row in inside:
                        yield images[int(row)].as_py()
                start = end


def _by_part(wanted: pa.Table) -> Iterator[tuple[str, int, np.ndarray]]:
    """The runs of rows that lie in one part: its source, its number, the rows' numbers in it."""
    sources = wanted["source"].combine_chunks().dictionary_encode()
    names, of_row = sources.dictionary.to_pylist(), sources.indices.to_numpy()
    part_of, row_of = wanted["part"].to_numpy(), wanted["row"].to_numpy()
    changes = np.flatnonzero((np.diff(of_row) != 0) | (np.diff(part_of) != 0)) + 1
    edges = [0, *changes.tolist(), len(row_of)]
    for start, end in pairwise(edges):
        if start < end:
            yield names[of_row[start]], int(part_of[start]), row_of[start:end]
