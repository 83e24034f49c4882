"""Tables in Parquet files: written whole, with exactly the columns that they should have, and read back the same."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from temper.base.atomic import atomic_file
from temper.base.errors import TemperError


def write(path: str | Path, schema: pa.Schema, columns: Mapping[str, Any]) -> None:
    """Writes a table of exactly the columns of `schema`."""
    with atomic_file(path) as partial:
        pq.write_table(pa.table(dict(columns), schema=schema), partial, compression="zstd")


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
