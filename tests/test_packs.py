"""Packed images are written in shards and read back."""

from pathlib import Path

import numpy as np
import pytest

from temper.base.errors import TemperError
from temper.packs import Pack, PackWriter


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


def test_a_missing_pack_is_named(tmp_path: Path) -> None:
    with pytest.raises(TemperError, match=r"train: expected images-00000.npy, ..., found none; run dvc repro pack$"):
        Pack(tmp_path / "train")


def test_an_image_of_another_shape_is_refused(tmp_path: Path) -> None:
    with PackWriter(tmp_path, 1, 4, 5) as writer, pytest.raises(ValueError, match=r"expected .*\(4, 5, 3\), received"):
        writer.append(np.zeros((5, 4, 3), np.uint8))
