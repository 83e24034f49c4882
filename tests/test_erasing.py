"""Random erasing against its paper: how often, how much, of which proportions, with what."""

import math

import numpy as np
import pytest

from temper.augmentation.augment import Magnitudes, augment
from temper.augmentation.erasing import WIDEST
from temper.augmentation.geometry import cropping, rectangle, warp

SHAPES = [(100, 100), (60, 180), (8, 8)]


def erased(shape: tuple[int, int], largest: float, count: int = 400) -> list[np.ndarray]:
    """For each of some black images, the pixels that are not black any more."""
    black = np.zeros((*shape, 3), np.uint8)
    results = [augment(black, Magnitudes(erasing=largest), np.random.default_rng(seed)) for seed in range(count)]
    return [result.max(axis=2) > 0 for result in results]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("largest", [0.01, 0.2, 0.4, 1.0])
def test_half_of_the_images_lose_a_rectangle_of_the_drawn_area(shape: tuple[int, int], largest: float) -> None:
    marks = [mark for mark in erased(shape, largest) if mark.any()]
    assert 150 < len(marks) < 250
    shares = []
    for mark in marks:
        rows, columns = np.flatnonzero(mark.any(axis=1)), np.flatnonzero(mark.any(axis=0))
        assert mark[np.ix_(rows, columns)].mean() > 0.99, "a rectangle"
        shares.append(len(rows) * len(columns) / mark.size)
    rounding = 0.01 if shape != (8, 8) else 0.09
    least = min(0.02, largest)
    assert least - rounding <= min(shares) and max(shares) <= largest + rounding
    assert abs(np.mean(shares) - (least + largest) / 2) < 0.04 + rounding / 2


def test_the_noise_has_a_value_of_its_own_for_each_pixel_and_channel() -> None:
    black = np.zeros((64, 64, 3), np.uint8)
    results = [augment(black, Magnitudes(erasing=1), np.random.default_rng(seed)) for seed in range(20)]
    noise = np.concatenate([result[result.any(axis=2)] for result in results])
    assert abs(noise.mean() - 127.5) < 2 and abs(noise.std() - 73.9) < 2
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.05
    assert not np.array_equal(results[0], results[1])


@pytest.mark.parametrize("share", [0.001, 0.02, 0.4, 0.9, 1.0])
def test_a_rectangle_is_inside_and_has_its_share_of_the_area(share: float) -> None:
    ratios = []
    for draw in np.random.default_rng(0).uniform(-1, 1, (500, 3)):
        top, left, height, width = rectangle(share, WIDEST, draw)
        assert top >= 0 and left >= 0 and top + height <= 1 + 1e-12 and left + width <= 1 + 1e-12
        assert height * width == pytest.approx(share)
        ratios.append(math.log(height / width))
    widest = min(math.log(WIDEST), -math.log(share))
    assert max(map(abs, ratios)) <= widest + 1e-9 and np.mean(ratios) == pytest.approx(0, abs=widest / 8 + 1e-9)


def test_cropping_shows_what_is_in_the_rectangle() -> None:
    """Each source pixel of a quarter becomes two by two pixels, whose average it is."""
    photo = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    seen = warp(photo, cropping(16, 24, (0.25, 0.5, 0.5, 0.5)))
    average = seen.reshape(8, 2, 12, 2, 3).mean(axis=(1, 3))
    padded = np.pad(photo, ((0, 0), (0, 1), (0, 0)), "symmetric").astype(float)
    weights = np.array([0.125, 0.75, 0.125])  # bilinear: 3/4 and 1/4 of each neighbour, averaged over both
    down = sum(weight * padded[3 + step : 11 + step] for step, weight in enumerate(weights))
    expected = sum(weight * down[:, 11 + step : 23 + step] for step, weight in enumerate(weights))
    assert np.abs(average - expected).max() < 1.5
