"""What `embed` writes, read as `warm_up` reads it: the backbone's own values, whatever the shards."""

import functools
import hashlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from stages import embed as stage
from temper.augmentation.augment import Magnitudes, magnitudes
from temper.base import disk
from temper.base.errors import TemperError
from temper.embeddings import Embeddings
from temper.packs import Pack, PackWriter
from temper.settings.augmentation import Augmentation
from temper.shards import ShardWriter

SIDE, VIEWS, FEATURES = 8, 3, 5
STRONG: Magnitudes = magnitudes(0.3, Augmentation())


def make_pack(folder: Path, numbers: list[int]) -> Pack:
    image_ids = [hashlib.sha256(str(number).encode()).hexdigest()[:16] for number in numbers]
    with PackWriter(folder, np.array(image_ids, "U16"), SIDE, SIDE) as writer:
        for number in numbers:
            writer.append(np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8))
        writer.finish(np.array(numbers, np.int32))
    return Pack(folder)


@pytest.fixture
def backbone() -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIDE, SIDE, 3))
    return keras.Model(inputs, keras.layers.Dense(FEATURES)(keras.layers.Flatten()(inputs)))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "ShardWriter", functools.partial(ShardWriter, shard_bytes=40 * VIEWS * FEATURES * 4))


def write(folder: Path, backbone: Any, numbers: list[int]) -> list[bytes]:
    """Embeds images into data/embeddings/<folder's name>, and returns the shards."""
    target = Path("data/embeddings") / folder.name
    target.parent.mkdir(parents=True, exist_ok=True)
    stage.embed(target, backbone, make_pack(folder, numbers), VIEWS, STRONG, 0, "train")
    return [path.read_bytes() for path in sorted(target.glob("embeddings-*.npy"))]


@pytest.mark.usefixtures("small_shards")
def test_warm_up_reads_the_values_of_the_backbone_across_shards(in_tmp_path: Path, backbone: Any) -> None:
    assert len(write(in_tmp_path / "train", backbone, list(range(300)))) > 3
    embeddings, pack = Embeddings("train"), Pack(in_tmp_path / "train")
    assert embeddings.views == VIEWS and list(embeddings.labels) == list(range(300))
    rows = np.array([299, 0, 63, 64, 150, 150])
    plain = embeddings.take(rows, np.zeros_like(rows))
    assert plain.dtype == np.float32
    assert np.allclose(plain, backbone.predict(pack.images(rows), verbose=0), rtol=1e-5, atol=1e-3)
    for view in range(1, VIEWS):
        assert not np.allclose(embeddings.take(rows, np.full_like(rows, view)), plain)


def test_what_would_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packs = {split: make_pack(tmp_path / split, [1, 2, 3]) for split in ("train", "validation")}
    stage.require_room_for(packs, 10**6, 5)
    monkeypatch.setattr(disk, "SPARE", 2**60)
    for views, remedy in ((VIEWS, "lower embed.views"), (1, "choose a backbone with fewer features")):
        with pytest.raises(TemperError, match=rf"\({views} views of 3 training images, 5 features each\).* {remedy}$"):
            stage.require_room_for(packs, views, FEATURES)


@pytest.mark.usefixtures("small_shards")
def test_added_images_leave_most_embeddings_their_bytes(in_tmp_path: Path, backbone: Any) -> None:
    """Of the augmented views too: how an image is changed follows from the image, not from its place."""
    numbers = list(range(600))
    before = write(in_tmp_path / "before", backbone, numbers)
    after = write(in_tmp_path / "after", backbone, [*numbers[:200], 1000, 1001, *numbers[200:]])
    assert len(before) > 8
    assert 1 <= len(set(before) - set(after)) <= 3


def test_one_shard_holds_the_same_values_as_many(
    in_tmp_path: Path, backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training reads the same values in the same order, so its weights do not depend on the shards."""
    numbers = list(range(300))
    assert len(write(in_tmp_path / "one", backbone, numbers)) == 1
    small = functools.partial(ShardWriter, shard_bytes=40 * VIEWS * FEATURES * 4)
    monkeypatch.setattr(stage, "ShardWriter", small)
    assert len(write(in_tmp_path / "many", backbone, numbers)) > 3
    rows, views = np.arange(300), np.arange(300) % VIEWS
    assert np.array_equal(Embeddings("one").take(rows, views), Embeddings("many").take(rows, views))
