"""Augmentation: bounded, repeatable, and each transformation on its own."""

import numpy as np
import pytest

from temper.settings.augmentation import Augmentation
from temper.training.augmentation import Magnitudes, augment, magnitudes

NONE = dict.fromkeys(Magnitudes.__dataclass_fields__, 0.0)
PHOTO = np.random.default_rng(0).integers(0, 256, (24, 36, 3)).astype(np.uint8)


def run(seed: int, **magnitude: float) -> np.ndarray:
    return augment(PHOTO, Magnitudes(**(NONE | magnitude)), np.random.default_rng(seed))


def test_no_magnitude_changes_nothing() -> None:
    assert np.array_equal(run(0), PHOTO)


@pytest.mark.parametrize("name", [*NONE])
def test_each_transformation_acts_alone_and_repeatably(name: str) -> None:
    results = [run(seed, **{name: 0.3}) for seed in range(8)]
    assert all(np.array_equal(result, run(seed, **{name: 0.3})) for seed, result in enumerate(results))
    assert any(not np.array_equal(result, PHOTO) for result in results)
    assert all(result.shape == PHOTO.shape and result.dtype == np.uint8 for result in results)


def test_a_flip_mirrors_every_second_image() -> None:
    results = [run(seed, flip=0.1) for seed in range(200)]
    mirrored = sum(np.array_equal(result, PHOTO[:, ::-1]) for result in results)
    untouched = sum(np.array_equal(result, PHOTO) for result in results)
    assert mirrored + untouched == 200 and 70 < mirrored < 130


def test_brightness_stays_within_its_magnitude() -> None:
    for seed in range(20):
        change = run(seed, brightness=0.1).astype(int) - PHOTO
        inside = (PHOTO > 30) & (PHOTO < 225)
        assert np.abs(change[inside]).max() <= 26 and np.ptp(change[inside]) <= 1


def test_translation_moves_by_its_magnitude_at_most() -> None:
    dot = np.zeros((41, 41, 3), np.uint8)
    dot[20, 20] = 255
    magnitude = Magnitudes(**(NONE | {"translation": 0.1}))
    for seed in range(20):
        moved = augment(dot, magnitude, np.random.default_rng(seed))
        assert np.abs(np.argwhere(moved[..., 0] > 0) - 20).max() <= 5


def test_one_transformation_set_to_0_leaves_the_draws_of_the_others() -> None:
    assert np.array_equal(run(3, brightness=0.2, flip=0), run(3, brightness=0.2))


def test_aug_sets_all_but_those_set_alone() -> None:
    chosen = magnitudes(0.2, Augmentation(hue=0, zoom=0.5))
    assert (chosen.hue, chosen.zoom, chosen.flip, chosen.rotation) == (0, 0.5, 0.2, 0.2)
    assert magnitudes(0, Augmentation()).any is False
