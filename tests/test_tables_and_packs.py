"""What stages hand to each other is written whole and read back."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from temper import tables
from temper.base.atomic import atomic_file, atomic_folder
from temper.base.errors import TemperError
from temper.packs import Pack, PackWriter
from temper.parallel import ordered_map


def raw_row(number: int, size: int = 100) -> dict[str, Any]:
    image = bytes([number % 256]) * size
    return {
        "path": f"{number}.png",
        "label": None if number % 7 == 0 else "ant",
        "split": None,
        "image": image,
        "sha256": hashlib.sha256(image).hexdigest(),
        "width": 3,
        "height": 4,
        "phash": 2**64 - 1 - number,
        "problem": None,
    }


def test_raw_parts_and_row_groups_read_back_in_order(tmp_path: Path) -> None:
    for name, numbers in (("raw", range(40)), ("auxiliary", range(40, 57)), ("none", range(0))):
        (tmp_path / name).mkdir()
        with tables.RawWriter(tmp_path / name, part_bytes=1000, row_group_bytes=300) as writer:
            for number in numbers:
                writer.append(raw_row(number))
    folders = [tmp_path / "raw", tmp_path / "none", tmp_path / "auxiliary"]
    assert len(tables.raw_parts(*folders)) == 4 + 1 + 2
    metadata = tables.read_raw_metadata(*folders)
    assert metadata["path"].to_pylist() == [f"{number}.png" for number in range(57)]
    assert metadata["folder"].to_pylist() == [0] * 40 + [2] * 17
    assert metadata["phash"].to_pylist()[5] == 2**64 - 6
    assert "image" not in metadata.column_names
    wanted = metadata.filter(pa.array([number % 5 == 0 for number in range(57)]))
    assert list(tables.stream_images(folders, wanted)) == [bytes([number]) * 100 for number in range(0, 57, 5)]


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with tables.RawWriter(tmp_path / name) as writer:
            for number in range(10):
                writer.append(raw_row(number))
    assert (tmp_path / "a/part-00000.parquet").read_bytes() == (tmp_path / "b/part-00000.parquet").read_bytes()


def test_a_table_that_is_missing_or_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.parquet").write_bytes(b"PAR1")
    for name in ("half.parquet", "none.parquet"):
        with pytest.raises(TemperError, match=f"{name}: expected a table of image_id"):
            tables.read(tmp_path / name, tables.IMAGES)


def test_a_pack_reads_back_over_its_shards(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (11, 4, 5, 3)).astype(np.uint8)
    labels, ids = np.arange(11, dtype=np.int32), np.array([f"{number:016x}" for number in range(11)])
    with PackWriter(tmp_path, 11, 4, 5, shard_bytes=200) as writer:
        for image in images:
            writer.append(image)
        writer.finish(labels, ids)
    assert len(list(tmp_path.glob("images-*.npy"))) == 4
    pack = Pack(tmp_path)
    order = np.array([10, 0, 3, 3, 2])
    assert np.array_equal(pack.images(order), images[order])
    assert np.array_equal(pack.labels, labels) and list(pack.image_ids) == list(ids)
    assert len(pack) == 11 and pack.image_shape == (4, 5, 3)


def test_an_empty_pack_is_a_pack(tmp_path: Path) -> None:
    with PackWriter(tmp_path, 0, 4, 5) as writer:
        writer.finish(np.empty(0, np.int32), np.empty(0, "U16"))
    assert len(Pack(tmp_path)) == 0


def test_a_pack_without_all_its_images_is_not_finished(tmp_path: Path) -> None:
    with PackWriter(tmp_path, 2, 4, 5) as writer:
        writer.append(np.zeros((4, 5, 3), np.uint8))
        with pytest.raises(ValueError, match="1 images are missing"):
            writer.finish(np.zeros(2, np.int32), np.zeros(2, "U16"))


def test_an_output_is_whole_or_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/old").touch()
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "file") as path:
        path.write_text("ne")
        raise RuntimeError
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "folder") as path:
        (path / "new").touch()
        raise RuntimeError
    assert (tmp_path / "file").read_text() == "old"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "old"]
    with atomic_folder(tmp_path / "folder") as path:
        (path / "new").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "new"]


def test_what_a_killed_run_left_beside_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".partial-folder").mkdir()
    (tmp_path / ".partial-folder/half").touch()
    with atomic_folder(tmp_path / "folder") as path:
        (path / "whole").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["whole"]


def test_ordered_map_keeps_order_and_reads_little_ahead() -> None:
    read = 0

    def numbers() -> Any:
        nonlocal read
        for number in range(1000):
            read += 1
            yield number

    results = ordered_map(lambda number: number * number, numbers(), threads=4, ahead=2)
    assert next(results) == 0
    assert read <= 10
    assert list(results) == [number * number for number in range(1, 1000)]


def test_ordered_map_passes_an_error_on() -> None:
    with pytest.raises(ZeroDivisionError):
        list(ordered_map(lambda number: 1 // number, [1, 0, 1], threads=2))
