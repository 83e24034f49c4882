"""The raw tables: one for each named source, with a row for each published image.

A table is data/raw/NAME/part-00000.parquet, ... Parts have about 16 MB and are written and read as a stream, at most 16
MB at a time. The metadata columns can be read without the image bytes. The images alone decide where a part ends
(temper/cuts.py), so an added image changes only the part that it falls into, and the others keep their bytes.

Reading verifies the data: photos by their own SHA-256, the other columns by checksums in the part's metadata.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from temper import table_checksums
from temper.base.checksums import MEND
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
        ("width", pa.int32()),  # of the upright image; null if there is a problem
        ("height", pa.int32()),
        ("phash", pa.uint64()),
        ("problem", pa.string()),  # why the bytes are not a usable image; null if they are
        # Only some sources publish these; null elsewhere:
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
    """Writes a raw table into a folder, part by part, with one row group in memory at a time."""

    def __init__(self, folder: Path, part_bytes: int = FILE_BYTES, row_group_bytes: int = ROW_GROUP_BYTES) -> None:
        self._folder, self._part_bytes, self._row_group_bytes = folder, part_bytes, row_group_bytes
        self._rows: list[dict[str, Any]] = []
        self._metadata: list[pa.Table] = []  # the metadata columns of the current part so far
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
            # Photos are compressed already, so only the other columns gain from compression.
            compression = dict.fromkeys(METADATA, "zstd") | {"image": "none"}
            path = self._folder / f"part-{self._parts:05}.parquet"
            self._part = pq.ParquetWriter(path, RAW, compression=compression, use_dictionary=["label", "split"])
            self._parts += 1
        table = pa.Table.from_pylist(self._rows, schema=RAW)
        self._part.write_table(table)
        self._metadata.append(table.select(METADATA))
        self._written += self._pending
        self._rows, self._pending = [], 0

    def _close_part(self) -> None:
        if self._part is not None:
            self._part.add_key_value_metadata(
                {table_checksums.KEY: table_checksums.of_table(pa.concat_tables(self._metadata))}
            )
            self._part.close()
        self._part, self._written, self._metadata = None, 0, []

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
    """The paths of the parts of a source's raw table, in order.

    Raises:
        TemperError: there are none.
    """
    found = sorted((Path(folder) / source).glob("part-*.parquet"))
    if not found:
        raise TemperError(f"{folder}/{source}: expected part-00000.parquet, ..., found none; run dvc repro")
    return found


def read_metadata(sources: Sequence[str], folder: str | Path = FOLDER) -> pa.Table:
    """The raw tables of some sources without their image bytes, in the order of `sources`.

    Three columns are added that say where each row's image bytes are: `source`, `part` and `row`.

    Raises:
        TemperError: a part is missing or damaged.
    """
    found: list[pa.Table] = []
    for source in sources:
        for number, path in enumerate(parts(source, folder)):
            table = _read_metadata(path)
            for name, values in (
                ("source", pa.DictionaryArray.from_arrays(np.zeros(len(table), np.int32), [source]).cast(pa.string())),
                ("part", pa.array(np.full(len(table), number, np.int32))),
                ("row", pa.array(np.arange(len(table), dtype=np.int32))),
            ):
                table = table.append_column(name, values)
            found.append(table)
    return pa.concat_tables(found)


def read_metadata_of(wanted: pa.Table, folder: str | Path = FOLDER) -> pa.Table:
    """The metadata of the raw rows that `wanted` names by its columns `source`, `part` and `row`, in the same order.

    Raises:
        TemperError: a part is missing or damaged, or has no such row.
    """
    found = []
    for source, number, rows in _by_part(wanted):
        path = _part(source, number, folder)
        table = _read_metadata(path)
        _require_rows(path, rows, len(table))
        found.append(table.take(pa.array(rows)))
    return pa.concat_tables(found) if found else RAW.empty_table().select(METADATA)


def _read_metadata(path: Path) -> pa.Table:
    """The metadata columns of a part, verified by their checksums."""
    with table_checksums.reading(path, "a raw table"), pq.ParquetFile(path) as part:
        table = part.read(METADATA).cast(pa.schema([RAW.field(name) for name in METADATA]))
        written = {table_checksums.KEY: (part.metadata.metadata or {}).get(table_checksums.KEY, b"")}
    table_checksums.require_table(table, written, path)
    return table


def _part(source: str, number: int, folder: str | Path) -> Path:
    """The path of a part of a source's raw table, by its number."""
    found = parts(source, folder)
    if number >= len(found):
        raise TemperError(
            f"{folder}/{source}: expected part-{number:05}.parquet, where data/images.parquet says that photos are, "
            f"found {len(found)} parts; run dvc repro"
        )
    return found[number]


def _require_rows(path: Path, rows: np.ndarray, there: int) -> None:
    if rows.max() >= there:
        raise TemperError(
            f"{path}: expected a row {rows.max()}, where data/images.parquet says that a photo is, found {there} rows; "
            "run dvc repro"
        )


def stream_images(wanted: pa.Table, folder: str | Path = FOLDER) -> Iterator[bytes]:
    """Yields the encoded bytes of each row of `wanted`.

    One row group is held in memory at a time; groups without a wanted row are skipped.

    Args:
        wanted: a table with the columns `source`, `part` and `row`. Rows of the same part must be next to each other
            and in the order of the part. If it has a column `image_id`, the bytes are verified by it, otherwise by the
            checksum in their own raw row.

    Raises:
        TemperError: a part is missing, damaged or has no such row, or a photo is not the wanted one; the message names
            it, with its path as published.
    """
    done = 0
    for source, number, rows in _by_part(wanted):
        path = _part(source, number, folder)
        image_ids = wanted["image_id"].slice(done, len(rows)).to_pylist() if "image_id" in wanted.column_names else None
        yield from _stream_part(path, rows, image_ids)
        done += len(rows)


def _stream_part(path: Path, rows: np.ndarray, image_ids: list[str] | None) -> Iterator[bytes]:
    """The bytes of some rows of a part, verified by `image_ids` or else by the checksum in their own row."""
    with table_checksums.reading(path, "a raw table"):
        part = pq.ParquetFile(path)
    with part:
        ends = np.cumsum([part.metadata.row_group(group).num_rows for group in range(part.num_row_groups)])
        _require_rows(path, rows, int(ends[-1]) if len(ends) else 0)
        for group, (start, end) in enumerate(pairwise([0, *ends.tolist()])):
            inside = np.flatnonzero((rows >= start) & (rows < end)).tolist()
            if inside:
                with table_checksums.reading(path, "a raw table"):
                    table = part.read_row_group(group, columns=["image", "sha256", "path"])
                    _require_rows(path, rows[inside] - start, len(table))
                    images, digests = table["image"], table["sha256"]
                for place in inside:
                    row = int(rows[place]) - start
                    image: bytes = images[row].as_py() or b""
                    expected = image_ids[place] if image_ids else digests[row].as_py()
                    if not expected or not hashlib.sha256(image).hexdigest().startswith(expected):
                        with table_checksums.reading(path, "a raw table"):
                            raise _wrong_photo(path, table["path"][row].as_py(), int(rows[place]), expected)
                    yield image


def _wrong_photo(path: Path, name: str, row: int, expected: str) -> TemperError:
    return TemperError(
        f"{path}: expected the photo {name} in row {row} with a SHA-256 that begins with {expected}, received other "
        f"bytes; if the file is damaged, {MEND}; or run dvc repro"
    )


def _by_part(wanted: pa.Table) -> Iterator[tuple[str, int, np.ndarray]]:
    """Groups neighbouring rows of the same part: the source, the number of the part, and the rows' numbers in it."""
    sources = wanted["source"].combine_chunks().dictionary_encode()
    names, of_row = sources.dictionary.to_pylist(), sources.indices.to_numpy()
    part_of, row_of = wanted["part"].to_numpy(), wanted["row"].to_numpy()
    changes = np.flatnonzero((np.diff(of_row) != 0) | (np.diff(part_of) != 0)) + 1
    edges = [0, *changes.tolist(), len(row_of)]
    for start, end in pairwise(edges):
        if start < end:
            yield names[of_row[start]], int(part_of[start]), row_of[start:end]
