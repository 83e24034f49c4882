"""Writes and reads tables as parquet files with a fixed schema, verified by checksums when they are read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from temper import table_checksums
from temper.base.atomic import atomic_file


def write(path: str | Path, schema: pa.Schema, columns: Mapping[str, Any]) -> None:
    """Writes a table with exactly the columns of `schema`, the metadata of `schema`, and checksums of both."""
    table = pa.table(dict(columns), schema=schema)
    metadata = schema.metadata or {}
    table = table.replace_schema_metadata(metadata | {table_checksums.KEY: table_checksums.of_table(table, metadata)})
    with atomic_file(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read(path: str | Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a table that `write` wrote, or only some `columns` of it, and verifies its checksums.

    Raises:
        TemperError: the file is missing, damaged, or a table with other columns.
    """
    wanted = pa.schema([schema.field(name) for name in columns or schema.names])
    with table_checksums.reading(path, _expected(schema)):
        table = pq.read_table(path, columns=wanted.names)
        metadata = table.schema.metadata
        table = table.cast(wanted)
    table_checksums.require_table(table, metadata, path)
    return table


def read_metadata(path: str | Path, schema: pa.Schema) -> dict[str, str]:
    """The metadata with which `write` wrote a table, verified by their checksum.

    Raises:
        TemperError: as in `read`.
    """
    with table_checksums.reading(path, _expected(schema)):
        metadata = pq.read_schema(path).metadata or {}
    table_checksums.require_table(pa.table({}), metadata, path)
    return {key.decode(): value.decode() for key, value in metadata.items()}


def _expected(schema: pa.Schema) -> str:
    return f"a table of {', '.join(schema.names)}"
