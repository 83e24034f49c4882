"""The tables that stages hand to each other: their columns, and how they are written and read.

All are Parquet. The raw table comes in parts, `part-00000.parquet`, ... of about 256 MB, in row groups of about
16 MB, so that it is written and read as a stream; its metadata columns are read without its image bytes.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from temper.atomic import atomic_file
from temper.errors import TemperError

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
RAW_METADATA = [name for name in RAW.names if name != "image"]

IMAGES = pa.schema(
    [
        ("image_id", pa.string()),  # the first 16 hex digits of sha256; images of equal bytes share it
        ("part", pa.int32()),  # where the bytes are in the raw table
        ("row", pa.int32()),
        ("path", pa.string()),
        ("class_name", pa.string()),  # null: unlabelled
        ("split", pa.string()),  # one of SPLITS
    ]
)
SPLITS = ("train", "validation", "test", "unlabelled")

BOXES = pa.schema(
    [
        ("image_id", pa.string()),
        ("x1", pa.float32()),  # pixels of the upright image
        ("y1", pa.float32()),
        ("x2", pa.float32()),
        ("y2", pa.float32()),
        ("score", pa.float32()),
        ("class_name", pa.string()),
        ("detector", pa.string()),
    ]
)

PREDICTIONS = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("split", pa.string()),
        ("class_name", pa.string()),  # null: unlabelled
        ("predicted", pa.string()),
        ("probabilities", pa.list_(pa.float32())),  # in the order of classes.txt
    ]
)

Folders = Sequence[str | Path]
RAW_FOLDERS = ("data/raw", "data/auxiliary")  # what `fetch` and `auxiliary` write

PART_BYTES = 256 * 2**20
ROW_GROUP_BYTES = 16 * 2**20


def write(path: str | Path, schema: pa.Schema, columns: dict[str, Any]) -> None:
    """Writes a table of exactly the columns of `schema`."""
    with atomic_file(path) as partial:
        pq.write_table(pa.table(columns, schema=schema), partial, compression="zstd")


def read(path: str | Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a table that `write` wrote, or only some `columns` of it.

    Raises:
        TemperError: the file is missing or is no such table.
    """
    try:
        table = pq.read_table(path, columns=list(columns or schema.names))
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise TemperError(f"{path}: expected a table of {', '.join(schema.names)}: {error}; run dvc repro") from None
    return table.cast(pa.schema([schema.field(name) for name in table.column_names]))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table for people and for DVC's plots."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


class RawWriter:
    """Writes the raw table into a folder, part after part, holding one row group in memory."""

    def __init__(self, folder: Path, part_bytes: int = PART_BYTES, row_group_bytes: int = ROW_GROUP_BYTES) -> None:
        self._folder, self._part_bytes, self._row_group_bytes = folder, part_bytes, row_group_bytes
        self._rows: list[dict[str, Any]] = []
        self._pending = self._written = self._parts = 0
        self._part: pq.ParquetWriter | None = None

    def append(self, row: dict[str, Any]) -> None:
        """Adds one row, a value for each column of RAW."""
        self._rows.append(row)
        self._pending += len(row["image"])
        if self._pending >= self._row_group_bytes:
            self._flush()

    def _flush(self) -> None:
        if self._part is None:
            # Photos are compressed already: only the other columns gain from it.
            compression = dict.fromkeys(RAW_METADATA, "zstd") | {"image": "none"}
            path = self._folder / f"part-{self._parts:05}.parquet"
            self._part = pq.ParquetWriter(path, RAW, compression=compression, use_dictionary=["label", "split"])
            self._parts += 1
        self._part.write_table(pa.Table.from_pylist(self._rows, schema=RAW))
        self._written += self._pending
        self._rows, self._pending = [], 0
        if self._written >= self._part_bytes:
            self._close_part()

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


def raw_parts(*folders: str | Path) -> list[Path]:
    """The parts of raw tables, in order: those of the first folder, then those of the next."""
    found = []
    for folder in folders:
        parts = sorted(Path(folder).glob("part-*.parquet"))
        if not parts:
            raise TemperError(f"{folder}: expected part-00000.parquet, ..., found none; run dvc repro")
        found.extend(parts)
    return found


def read_raw_metadata(*folders: str | Path) -> pa.Table:
    """Raw tables without their image bytes, with `part` and `row` added: where each row's bytes are.

    Parts are numbered as `raw_parts` lists them; the column `folder` says which of `folders` a row is from.
    """
    found: list[pa.Table] = []
    for folder_number, folder in enumerate(folders):
        for path in raw_parts(folder):
            table = pq.read_table(path, columns=RAW_METADATA)
            for name, values in (
                ("part", np.full(len(table), len(found), np.int32)),
                ("row", np.arange(len(table), dtype=np.int32)),
                ("folder", np.full(len(table), folder_number, np.int32)),
            ):
                table = table.append_column(name, pa.array(values))
            found.append(table)
    return pa.concat_tables(found)


def read_metadata_of(folders: Folders, images: pa.Table) -> pa.Table:
    """The metadata of the raw rows that `images` names by its columns `part` and `row`, in the order of `images`."""
    metadata = read_raw_metadata(*folders)
    starts = np.searchsorted(metadata["part"].to_numpy(), images["part"].to_numpy())
    return metadata.take(starts + images["row"].to_numpy())


def stream_images(folders: Folders, wanted: pa.Table) -> Iterator[bytes]:
    """The encoded bytes of the rows of `wanted`, which is sorted by its columns `part` and `row`.

    Holds one row group in memory and skips those that hold nothing wanted.
    """
    part_of, row_of = wanted["part"].to_numpy(), wanted["row"].to_numpy()
    for number, path in enumerate(raw_parts(*folders)):
        rows = row_of[part_of == number]
        if not len(rows):
            continue
        with pq.ParquetFile(path) as part:
            start = 0
            for group in range(part.num_row_groups):
                end = start + part.metadata.row_group(group).num_rows
                inside = rows[(rows >= start) & (rows < end)] - start
                if len(inside):
                    images = part.read_row_group(group, columns=["image"])["image"]
                    for row in inside:
                        yield images[int(row)].as_py()
                start = end
