"""The raw tables: read back in order, in parts that end where their images say, so that an edit changes few of them."""

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from temper import raw
from temper.base.errors import TemperError

PART = 50_000  # bytes of a part, about
GROUP = 15_000  # of a row group
LARGEST = 1_000  # of an image

Row = dict[str, Any]


def row(number: int) -> Row:
    """A photo of 100 to 1000 bytes."""
    chance = random.Random(number)
    return row_of(f"{number}.png", chance.randbytes(chance.randint(100, LARGEST)))


def row_of(path: str, image: bytes, sha256: str | None = None) -> Row:
    known = {"path": path, "image": image, "sha256": sha256 or hashlib.sha256(image).hexdigest()}
    return {**dict.fromkeys(raw.RAW.names), **known}


def write(folder: Path, rows: list[Row], part: int = PART, group: int = GROUP) -> list[Path]:
    """Writes a table and returns its parts."""
    folder.mkdir(parents=True)
    with raw.RawWriter(folder, part_bytes=part, row_group_bytes=group) as writer:
        for one in rows:
            writer.append(one)
    return raw.parts(folder.name, folder.parent)


def checksums(parts: list[Path]) -> set[str]:
    return {hashlib.sha256(part.read_bytes()).hexdigest() for part in parts}


def paths_in(parts: list[Path]) -> list[str]:
    return [path for part in parts for path in pq.read_table(part, columns=["path"])["path"].to_pylist()]


def bytes_of(part: Path) -> int:
    """The bytes of the images in a part."""
    return sum(map(len, pq.read_table(part, columns=["image"])["image"].to_pylist()))


TABLE = [row(number) for number in range(2500)]
NEW = [row(number) for number in range(5000, 5030)]  # a third of a part

EDITS: dict[str, Callable[[int], list[Row]]] = {
    "30 photos at the end": lambda _: TABLE + NEW,
    "30 photos at the start": lambda _: NEW + TABLE,
    "30 photos in the middle": lambda at: TABLE[:at] + NEW + TABLE[at:],
    "one photo added": lambda at: TABLE[:at] + NEW[:1] + TABLE[at:],
    "one photo changed": lambda at: TABLE[:at] + NEW[:1] + TABLE[at + 1 :],
    "one photo removed": lambda at: TABLE[:at] + TABLE[at + 1 :],
    "30 photos removed": lambda at: TABLE[:at] + TABLE[at + 30 :],
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edit_changes_one_or_two_parts_and_leaves_the_others_their_bytes(
    tmp_path: Path, edit: Callable[[int], list[Row]]
) -> None:
    before = write(tmp_path / "before", TABLE)
    assert len(before) > 15
    for at in (200, 777, 1250, 1999, 2300):
        edited = edit(at)
        after = write(tmp_path / f"after-{at}", edited)
        assert paths_in(after) == [one["path"] for one in edited]
        assert 1 <= len(checksums(before) - checksums(after)) <= 2
        assert len(checksums(after) - checksums(before)) <= 3


def test_parts_and_row_groups_keep_their_bounds(tmp_path: Path) -> None:
    """A quarter of `part_bytes` to four times as much, and an image; only the last part may be smaller."""
    parts = write(tmp_path / "raw", TABLE)
    sizes = [bytes_of(part) for part in parts]
    assert all(size >= PART / 4 for size in sizes[:-1]) and all(size < 4 * PART + LARGEST for size in sizes)
    assert 0.75 * PART < sum(sizes[:-1]) / len(sizes[:-1]) < 1.75 * PART
    groups = [
        len(file.read_row_group(number, columns=["image"])["image"].combine_chunks().buffers()[2])
        for file in map(pq.ParquetFile, parts)
        for number in range(file.num_row_groups)
    ]
    assert len(groups) > len(parts) and all(size < GROUP + LARGEST for size in groups)


@pytest.mark.parametrize("weight", [100, 8_000])
def test_parts_are_about_as_large_whatever_the_images_weigh(tmp_path: Path, weight: int) -> None:
    images = (random.Random(number).randbytes(weight) for number in range(30 * PART // weight))
    rows = [row_of(f"{number}.png", image) for number, image in enumerate(images)]
    sizes = [bytes_of(part) for part in write(tmp_path / "raw", rows)][:-1]
    assert 0.75 * PART < sum(sizes) / len(sizes) < 1.75 * PART


@pytest.mark.parametrize(("digit", "size"), [("0", PART // 4), ("f", 4 * PART)])
def test_whatever_the_checksums_the_bounds_hold(tmp_path: Path, digit: str, size: int) -> None:
    """Checksums that end a part as soon as they may, and those that never do, such as of one image again and again."""
    rows = [row_of(f"{number}.png", bytes(LARGEST), sha256=digit * 64) for number in range(900)]
    sizes = [bytes_of(part) for part in write(tmp_path / "raw", rows)]
    assert len(sizes) > 3 and all(size <= found < size + LARGEST for found in sizes[:-1])


def test_an_image_as_large_as_many_parts_is_one_part(tmp_path: Path) -> None:
    rows = [row_of(f"{number}.png", random.Random(number).randbytes(5 * PART)) for number in range(3)]
    assert [bytes_of(part) for part in write(tmp_path / "raw", rows)] == [5 * PART] * 3


def test_rows_without_bytes_end_no_part(tmp_path: Path) -> None:
    """Of addresses that are gone."""
    missing = [row_of(f"gone/{number}", b"") for number in range(50)]
    parts = write(tmp_path / "raw", [*missing, *TABLE[:100], *missing])
    assert paths_in(parts) == [one["path"] for one in [*missing, *TABLE[:100], *missing]]
    assert all(bytes_of(part) for part in parts)


def test_a_table_without_rows_has_one_part(tmp_path: Path) -> None:
    (part,) = write(tmp_path / "raw", [])
    assert pq.read_table(part).schema == raw.RAW


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", TABLE[:300]), write(tmp_path / "b", TABLE[:300])
    assert [part.read_bytes() for part in first] == [part.read_bytes() for part in second]


def test_sources_read_back_in_order_with_the_place_of_each_image(tmp_path: Path) -> None:
    tables = {"photos": TABLE[:400], "none": [], "more": TABLE[400:570]}
    for name, rows in tables.items():
        write(tmp_path / name, rows)
    expected = [(name, one) for name in ("photos", "none", "more") for one in tables[name]]
    metadata = raw.read_metadata(["photos", "none", "more"], tmp_path)
    assert "image" not in metadata.column_names
    assert metadata["path"].to_pylist() == [one["path"] for _, one in expected]
    assert metadata["source"].to_pylist() == [name for name, _ in expected]
    places = list(zip(*(metadata[name].to_pylist() for name in ("source", "part", "row")), strict=True))
    assert len(set(places)) == len(places) and max(part for _, part, _ in places) > 1
    wanted = metadata.filter(pa.array([number % 5 == 0 for number in range(len(expected))]))
    assert list(raw.stream_images(wanted, tmp_path)) == [one["image"] for _, one in expected[::5]]
    assert raw.read_metadata_of(wanted, tmp_path)["sha256"].to_pylist() == [one["sha256"] for _, one in expected[::5]]
    none = wanted.slice(0, 0)
    assert list(raw.stream_images(none, tmp_path)) == [] and len(raw.read_metadata_of(none, tmp_path)) == 0


def test_perceptual_hashes_are_whole(tmp_path: Path) -> None:
    hashes = [2**64 - 1, 0, 2**63]
    write(tmp_path / "raw", [one | {"phash": number} for one, number in zip(TABLE, hashes, strict=False)])
    assert raw.read_metadata(["raw"], tmp_path)["phash"].to_pylist() == hashes


def test_only_the_row_groups_that_hold_something_wanted_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "raw", TABLE)
    metadata = raw.read_metadata(["raw"], tmp_path)
    read: list[int] = []
    read_row_group = pq.ParquetFile.read_row_group

    def counted(file: Any, number: int, **options: Any) -> Any:
        read.append(number)
        return read_row_group(file, number, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    wanted = metadata.take(pa.array([3, 4, 2400]))
    assert list(raw.stream_images(wanted, tmp_path)) == [TABLE[number]["image"] for number in (3, 4, 2400)]
    assert len(read) == 2


def test_a_table_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TemperError, match="/photos: expected part-00000.parquet, ..., found none; run dvc repro"):
        raw.parts("photos", tmp_path)


def test_a_run_that_fails_writes_no_last_part(tmp_path: Path) -> None:
    """What was read so far looks like nothing whole."""
    (tmp_path / "raw").mkdir()
    with pytest.raises(RuntimeError), raw.RawWriter(tmp_path / "raw") as writer:
        writer.append(TABLE[0])
        raise RuntimeError
    assert not list((tmp_path / "raw").iterdir())


def test_photos_are_those_that_are_wanted(tmp_path: Path) -> None:
    """By their own checksum: a table of images may be of other raw tables, where stages were run by hand."""
    write(tmp_path / "raw", TABLE)
    metadata = raw.read_metadata(["raw"], tmp_path)
    rows = pa.array([3, 4])
    ids = pa.array([digits[:16] for digits in metadata["sha256"].take(rows).to_pylist()])
    wanted = metadata.take(rows).append_column("image_id", ids)
    assert len(list(raw.stream_images(wanted, tmp_path))) == 2
    swapped = wanted.set_column(wanted.column_names.index("image_id"), "image_id", ids.take(pa.array([1, 0])))
    with pytest.raises(
        TemperError, match=rf"part-0.*: expected the photo {TABLE[3]['path']} in row 3 with a SHA-256 that"
    ):
        list(raw.stream_images(swapped, tmp_path))


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("part", 99, "expected part-00099.parquet, where .* found"),
        ("row", 10**6, "expected a row 1000000, where .*, found"),
    ],
)
def test_rows_that_are_not_there_are_named(tmp_path: Path, column: str, value: int, said: str) -> None:
    write(tmp_path / "raw", TABLE)
    wanted = raw.read_metadata(["raw"], tmp_path).slice(0, 1)
    wanted = wanted.set_column(wanted.column_names.index(column), column, pa.array([value], pa.int32()))
    for read in (raw.stream_images, raw.read_metadata_of):
        with pytest.raises(TemperError, match=said):
            list(read(wanted, tmp_path))
