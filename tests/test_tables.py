"""Tables have exactly their columns, read back as written, and say what is wrong with a file that is none."""

from pathlib import Path

import pyarrow as pa
import pytest

from temper import tables
from temper.base.errors import TemperError
from temper.images import IMAGES

SCHEMA = pa.schema([("image_id", pa.string()), ("height", pa.int32()), ("probabilities", pa.list_(pa.float32()))])
COLUMNS = {"image_id": ["a", "b", None], "height": [1, None, 3], "probabilities": [[0.5, 0.25], [], None]}


def test_a_table_reads_back_whole_or_some_of_its_columns(tmp_path: Path) -> None:
    tables.write(tmp_path / "table.parquet", SCHEMA, COLUMNS)
    whole = tables.read(tmp_path / "table.parquet", SCHEMA)
    assert whole.schema == SCHEMA and whole.to_pydict() == COLUMNS
    some = tables.read(tmp_path / "table.parquet", SCHEMA, ["height"])
    assert some.column_names == ["height"] and some["height"].to_pylist() == [1, None, 3]


def test_an_empty_table_keeps_its_types(tmp_path: Path) -> None:
    tables.write(tmp_path / "table.parquet", SCHEMA, {name: [] for name in SCHEMA.names})
    empty = tables.read(tmp_path / "table.parquet", SCHEMA)
    assert len(empty) == 0 and empty.schema == SCHEMA


def test_equal_columns_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        tables.write(tmp_path / name, SCHEMA, COLUMNS)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_table_that_is_missing_or_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.parquet").write_bytes(b"PAR1")
    for name in ("half.parquet", "none.parquet"):
        with pytest.raises(TemperError, match=f"{name}: expected a table of image_id"):
            tables.read(tmp_path / name, IMAGES)


def test_a_table_of_other_columns_is_refused(tmp_path: Path) -> None:
    tables.write(tmp_path / "other.parquet", SCHEMA, COLUMNS)
    with pytest.raises(TemperError, match=r"other.parquet: expected a table of image_id, source, part.*run dvc repro$"):
        tables.read(tmp_path / "other.parquet", IMAGES)
