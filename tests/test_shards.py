"""Arrays in shards that end where their images say: what is added changes few of them, and training does not see them.

tests/test_raw.py does the same for the raw tables.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from temper.base.errors import TemperError
from temper.drawn_views import batches
from temper.shards import Shards, ShardWriter, shard_ends

SHAPE = (4, 6, 3)
ROW = 72  # bytes
SHARD = 100 * ROW


def image_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:16]


def pixels(number: int) -> Any:
    return np.random.default_rng(number).integers(0, 256, SHAPE).astype(np.uint8)


def write(folder: Path, numbers: list[int]) -> list[Path]:
    """Writes the images of these numbers, and returns the shards."""
    with ShardWriter(folder, "images", list(map(image_id, numbers)), SHAPE, "|u1", SHARD) as writer:
        for number in numbers:
            writer.append(pixels(number))
        writer.finish({})
    return sorted(folder.glob("images-*.npy"))


def contents(shards: list[Path]) -> set[bytes]:
    return {shard.read_bytes() for shard in shards}


IMAGES = list(range(5000))
NEW = list(range(9000, 9030))

EDITS: dict[str, Callable[[int], list[int]]] = {
    "30 images at the end": lambda _: IMAGES + NEW,
    "30 images at the start": lambda _: NEW + IMAGES,
    "30 images in the middle": lambda at: IMAGES[:at] + NEW + IMAGES[at:],
    "one image added": lambda at: IMAGES[:at] + NEW[:1] + IMAGES[at:],
    "one image changed": lambda at: IMAGES[:at] + NEW[:1] + IMAGES[at + 1 :],
    "one image removed": lambda at: IMAGES[:at] + IMAGES[at + 1 :],
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edit_changes_a_few_shards_and_leaves_the_others_their_bytes(
    tmp_path: Path, edit: Callable[[int], list[int]]
) -> None:
    before = write(tmp_path / "before", IMAGES)
    assert len(before) > 30
    for at in (311, 2600, 4444):
        after = write(tmp_path / f"after-{at}", edit(at))
        assert 1 <= len(contents(before) - contents(after)) <= 3
        assert len(contents(after) - contents(before)) <= 4


def test_scattered_images_change_no_more_shards_than_they_are(tmp_path: Path) -> None:
    before = write(tmp_path / "before", IMAGES)
    edited = list(IMAGES)
    for number in NEW[:5]:
        edited.insert(number * 37 % len(IMAGES), number)
    assert len(contents(before) - contents(write(tmp_path / "after", edited))) <= 2 * 5


def test_shards_keep_their_bounds() -> None:
    """A quarter of the wanted bytes to four times as many; only the last shard may be smaller."""
    ends = shard_ends(list(map(image_id, range(20_000))), ROW, SHARD)
    rows = np.diff([0, *ends])
    assert ends[-1] == 20_000 and (rows[:-1] >= 25).all() and (rows <= 400).all()
    assert 75 < rows[:-1].mean() < 175


@pytest.mark.parametrize(("digit", "rows"), [("0", 25), ("f", 400)])
def test_whatever_the_ids_the_bounds_hold(digit: str, rows: int) -> None:
    """Ids that end a shard as soon as they may, and those that never do, such as of one image again and again."""
    ends = shard_ends([digit * 16] * 1000, ROW, SHARD)
    assert set(np.diff([0, *ends])[:-1]) == {rows} and ends[-1] == 1000


def test_a_row_as_large_as_many_shards_is_one_shard() -> None:
    assert shard_ends(list(map(image_id, range(3))), 10 * SHARD, SHARD) == [1, 2, 3]


def test_rows_read_back_across_shards(tmp_path: Path) -> None:
    shards = write(tmp_path, IMAGES[:500])
    assert len(shards) > 2
    read = Shards(tmp_path, "images")
    assert len(read) == 500 and read.shape == SHAPE
    assert all(np.array_equal(read.row(number), pixels(number)) for number in range(500))
    assert np.array_equal(np.concatenate([np.load(shard) for shard in shards]), [pixels(n) for n in range(500)])


def test_too_many_rows_too_few_and_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "images", [image_id(0)], SHAPE, "|u1") as writer:
        with pytest.raises(ValueError, match=r"expected images of shape \(4, 6, 3\), received \(6, 4, 3\)"):
            writer.append(np.zeros((6, 4, 3), np.uint8))
        with pytest.raises(ValueError, match="1 images are missing"):
            writer.finish({})
        writer.append(pixels(0))
        with pytest.raises(ValueError, match="expected 1 images, received another one"):
            writer.append(pixels(1))


def test_missing_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(TemperError, match="expected embeddings-00000.npy, ..., and checksums.json, found no"):
        Shards(tmp_path, "embeddings")


def test_a_batch_of_embed_holds_images_of_one_shard() -> None:
    """So a shard whose images stay the same is computed from the same batches, and keeps its bytes."""
    found = [(int(rows[0]), int(rows[-1]) + 1) for rows in batches([100, 130, 330])]
    assert found == [(0, 64), (64, 100), (100, 130), (130, 194), (194, 258), (258, 322), (322, 330)]
    assert list(batches([0])) == []
