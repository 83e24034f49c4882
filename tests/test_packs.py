"""Packed images are written in shards and read back."""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from temper.base.errors import TemperError
from temper.packs import Pack, PackWriter


def ids(count: int) -> npt.NDArray[np.str_]:
    return np.array([hashlib.sha256(str(number).encode()).hexdigest()[:16] for number in range(count)], "U16")


def test_a_pack_reads_back_over_its_shards(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (11, 4, 5, 3)).astype(np.uint8)
    labels = np.arange(11, dtype=np.int32)
    with PackWriter(tmp_path, ids(11), 4, 5, shard_bytes=200) as writer:
        for image in images:
            writer.append(image)
        writer.finish(labels)
    assert len(list(tmp_path.glob("images-*.npy"))) > 2
    pack = Pack(tmp_path)
    order = np.array([10, 0, 3, 3, 2])
    assert np.array_equal(pack.images(order), images[order])
    assert np.array_equal(pack.labels, labels) and list(pack.image_ids) == list(ids(11))
    assert len(pack) == 11 and pack.image_shape == (4, 5, 3)


def test_an_empty_pack_is_a_pack(tmp_path: Path) -> None:
    with PackWriter(tmp_path, ids(0), 4, 5) as writer:
        writer.finish(np.empty(0, np.int32))
    assert len(Pack(tmp_path)) == 0 and Pack(tmp_path).image_shape == (4, 5, 3)


def test_a_pack_without_all_its_images_is_not_finished(tmp_path: Path) -> None:
    with PackWriter(tmp_path, ids(2), 4, 5) as writer:
        writer.append(np.zeros((4, 5, 3), np.uint8))
        with pytest.raises(ValueError, match="1 images are missing"):
            writer.finish(np.zeros(2, np.int32))


def test_a_missing_pack_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        TemperError,
        match=r"train: expected images-00000.npy, ..., and checksums.json, found no checksums.json; run dvc repro$",
    ):
        Pack(tmp_path / "train")


def test_an_image_of_another_shape_is_refused(tmp_path: Path) -> None:
    with (
        PackWriter(tmp_path, ids(1), 4, 5) as writer,
        pytest.raises(ValueError, match=r"expected .*\(4, 5, 3\), received"),
    ):
        writer.append(np.zeros((5, 4, 3), np.uint8))
