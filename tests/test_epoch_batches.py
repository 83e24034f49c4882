"""The batches of the fine-tune: the same bits whoever reads them and whenever, for every way to draw, change and mix.

Weights follow from the batches and the state that is saved after each epoch; so this, and that test of the state, is
law 5 for augmentation.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.fine_tune.__main__ import epoch_batches
from temper.augmentation.augment import augment_images, magnitudes
from temper.batches import shuffled
from temper.packs import Pack, PackWriter
from temper.settings.fine_tune import Settings

SIDE, BATCH, SEED = 16, 8, 3
LABELS = np.array([0] * 24 + [1] * 6 + [2] * 3, np.int32)
PLAIN: dict[str, Any] = {}
WAYS: list[dict[str, Any]] = [
    PLAIN,
    {"sampling": "balanced"},
    {"sampling": "sqrt"},
    *({"augmentation": augmentation} for augmentation in (
        {"mixup": 0.2},
        {"cutmix": 1.0},
        {"mixup": 0.2, "cutmix": 1.0},
        {"erasing": 0.4, "crop": 0.5},
        {"randaugment": {"ops": 3, "magnitude": 0.5}},
        {"vertical_flip": 0.5, "grayscale": 0.5, "blur": 0.5, "jpeg": 0.5},
    )),
    {"sampling": "balanced", "augmentation": {"mixup": 0.2, "cutmix": 1.0, "erasing": 0.4, "randaugment": {}}},
]  # fmt: skip


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    with PackWriter(tmp_path, np.array([f"{row:016x}" for row in range(len(LABELS))]), SIDE, SIDE) as writer:
        for row in range(len(LABELS)):
            writer.append(np.random.default_rng(row).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8))
        writer.finish(LABELS)
    return Pack(tmp_path)


def settings(aug: float = 0.1, **fine_tune: Any) -> Settings:
    return Settings.model_validate({"seed": SEED, "batch_size": BATCH, "lr": 0.1, "aug": aug, "fine_tune": fine_tune})


def contents(pack: Pack, chosen: Settings, epoch: int) -> list[tuple[bytes, bytes]]:
    batches = epoch_batches(pack, 3, chosen, epoch)
    read = [batches[number] for number in range(len(batches))]
    return [(images.tobytes(), targets.tobytes()) for images, targets in read]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_same_batches_on_any_thread_in_any_order_and_again(pack: Pack, tmp_path: Path, way: dict[str, Any]) -> None:
    chosen = settings(**way)
    first = contents(pack, chosen, 2)
    again = epoch_batches(Pack(tmp_path), 3, chosen, 2)  # as after a kill: no epoch was read before
    numbers = [3, 0, 4, 1, 2, 1]
    with ThreadPoolExecutor(4) as pool:
        for number, (images, targets) in zip(numbers, pool.map(again.__getitem__, numbers), strict=True):
            assert (images.tobytes(), targets.tobytes()) == first[number]
    assert not set(first) & set(contents(pack, chosen, 3))
    if way is not PLAIN:
        assert contents(pack, settings(), 2) != first


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_batch_has_images_and_targets_whose_rows_sum_to_1(pack: Pack, way: dict[str, Any]) -> None:
    batches = epoch_batches(pack, 3, settings(**way), 0)
    read = [batches[number] for number in range(len(batches))]
    assert [len(images) for images, _ in read] == [8, 8, 8, 8, 1]
    for images, targets in read:
        assert images.shape[1:] == (SIDE, SIDE, 3) and images.dtype == np.uint8
        assert targets.shape == (len(images), 3) and targets.dtype == np.float32
        assert np.allclose(targets.sum(axis=1), 1, atol=1e-6)


def test_without_any_of_it_an_epoch_is_every_image_once_in_the_shuffled_order(pack: Pack) -> None:
    """To the bit, as it was before there was a choice."""
    rows = shuffled(len(LABELS), SEED, 4)
    images = pack.images(rows)
    augment_images(images, rows, magnitudes(0.1, settings().fine_tune.augmentation), SEED, 4)
    batches = epoch_batches(pack, 3, settings(), 4)
    read = [batches[number] for number in range(len(batches))]
    assert np.array_equal(np.concatenate([images for images, _ in read]), images)
    assert np.array_equal(np.concatenate([targets for _, targets in read]), np.eye(3)[LABELS[rows]])


def share_of(image: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The share of `one` with which a blend of it and `other` comes closest to an image, and how close."""
    image, one, other = (pixels.astype(float).ravel() for pixels in (image, one, other))
    between = one - other
    share = float(between @ (image - other) / max(between @ between, 1e-9))
    return share, float(np.abs(share * between + other - image).max())


def test_mixed_targets_say_what_the_images_are_made_of(pack: Pack) -> None:
    """Found out from the pixels alone: which image of the batch is in it, and how much of it."""
    plain = epoch_batches(pack, 3, settings(aug=0), 1)
    mixed = epoch_batches(pack, 3, settings(aug=0, augmentation={"mixup": 1.0}), 1)
    shares = []
    for number in range(4):
        (before, classes), (images, targets) = plain[number], mixed[number]
        for place, (image, target) in enumerate(zip(images, targets, strict=True)):
            found = [share_of(image, before[place], other) for other in before]
            partner = min((other for other in range(len(before)) if other != place), key=lambda other: found[other][1])
            share = found[partner][0]
            expected = share * classes[place] + (1 - share) * classes[partner]
            assert np.abs(target - expected).max() < 0.02
            shares.append(float(target.max()))
    assert sum(share < 0.95 for share in shares) > 4


@pytest.mark.parametrize("sampling", ["balanced", "sqrt"])
def test_an_image_that_is_drawn_twice_is_augmented_in_two_ways(pack: Pack, sampling: str) -> None:
    batches = epoch_batches(pack, 3, settings(sampling=sampling), 0)
    images = np.concatenate([batches[number][0] for number in range(len(batches))])
    plain = epoch_batches(pack, 3, settings(aug=0, sampling=sampling), 0)
    before = np.concatenate([plain[number][0] for number in range(len(plain))])
    assert len({image.tobytes() for image in before}) < len(before), "some are drawn repeatedly"
    assert len({image.tobytes() for image in images}) == len(images)


def test_the_classes_of_a_balanced_epoch_are_equally_frequent(pack: Pack) -> None:
    batches = epoch_batches(pack, 3, settings(sampling="balanced"), 0)
    assert sum(batches[number][1].sum(axis=0) for number in range(len(batches))).tolist() == [11, 11, 11]
