"""Checksums of tables, stored in the metadata of their parquet files: one for each column, one for the other metadata.

Arrow reads many damaged files without an error. A checksum of the whole file could only be verified by reading all of
its bytes, photos included; with a checksum per column, columns that are not read cost nothing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from temper.base import checksums
from temper.base.errors import TemperError

KEY = b"checksums"  # in the metadata of a parquet file


@contextmanager
def reading(path: str | Path, expected: str) -> Iterator[None]:
    """Turns Arrow's errors about a parquet file that is missing, damaged or of another kind into a TemperError.

    Args:
        expected: what should be there, such as "a table of names".
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError, OverflowError) as error:
        problem = str(error).split("\n", 1)[0][:200]
        raise TemperError(
            f"{path}: expected {expected}: {problem}; if it is damaged, {checksums.MEND}; or run dvc repro"
        ) from None


def of_table(table: pa.Table, metadata: Mapping[bytes, bytes] | None = None) -> bytes:
    """The checksums of a table's columns and of its metadata, as an entry for the metadata of its file.

    They depend on the values alone, not on the file's encoding or the chunks in which the table is read.
    """
    columns = {f"column {name}": _of_column(table[name]) for name in table.column_names}
    return checksums.as_json(columns | {"metadata": _of_metadata(metadata)}).encode()


def require_table(table: pa.Table, metadata: Mapping[bytes, bytes] | None, path: Path | str) -> None:
    """Verifies a table, or some columns of it, by the checksums of `of_table`.

    Args:
        metadata: the metadata of the file that the table was read from, including the checksums.

    Raises:
        TemperError: a checksum differs, or the file has none.
    """
    listed = checksums.from_json((metadata or {}).get(KEY, b""), path)
    if _of_metadata(metadata) != listed.get("metadata"):
        raise TemperError(f"{path}: damaged: its metadata are not as they were written; {checksums.MEND}")
    for name in table.column_names:
        if _of_column(table[name]) != listed.get(f"column {name}"):
            raise TemperError(f"{path}: damaged: its column {name} is not as it was written; {checksums.MEND}")


def _of_metadata(metadata: Mapping[bytes, bytes] | None) -> str:
    own = {key: value for key, value in (metadata or {}).items() if key not in (KEY, b"ARROW:schema")}
    return checksums.of_bytes(repr(sorted(own.items())).encode())


def _of_column(column: pa.ChunkedArray) -> str:
    """The CRC-32 of a column: of which values are null, then of the lengths of texts or lists, then of the values."""
    checksum = checksums.of_bytes(np.packbits(column.is_valid().to_numpy()).tobytes(), f"{len(column):08x}")
    present = column.drop_null()
    if pa.types.is_list(column.type):
        checksum = checksums.of_bytes(pc.list_value_length(present).to_numpy().tobytes(), checksum)
        return checksums.of_bytes(_of_column(pc.list_flatten(present)).encode(), checksum)
    if not (pa.types.is_string(column.type) or pa.types.is_binary(column.type)):
        return checksums.of_bytes(present.to_numpy().tobytes(), checksum)
    checksum = checksums.of_bytes(pc.binary_length(present).to_numpy().tobytes(), checksum)
    for chunk in present.chunks:
        if len(chunk):
            _, offsets, text = chunk.buffers()
            ends = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
            checksum = checksums.of_bytes(memoryview(text)[ends[0] : ends[-1]] if ends[-1] else b"", checksum)
    return checksum
