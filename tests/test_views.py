"""Test-time augmentation: which views there are, what they show, and that their mean is one."""

import cv2
import numpy as np
import pytest

from temper.views import MOST, View, averaged, seen, views

PHOTOS = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3)).astype(np.uint8)
SHAPES = [(16, 24), (24, 8), (8, 8), (9, 27), (33, 33)]
WHOLE, MIRROR = View(), View(None, True)


def predict(images: np.ndarray) -> np.ndarray:
    """Probabilities that depend on where in an image it is bright."""
    scores = images.reshape(len(images), -1)[:, ::7].astype(np.float64) @ np.random.default_rng(1).normal(
        size=(images[0].size - 1) // 7 * 4 + 4
    ).reshape(-1, 4)
    odds = np.exp(scores / 1000 - (scores / 1000).max(axis=1, keepdims=True))
    probabilities: np.ndarray = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


@pytest.mark.parametrize(
    ("count", "mirrored", "expected"),
    [
        (1, False, [WHOLE]),
        (1, True, [WHOLE, MIRROR]),
        (2, False, [WHOLE, View((0.5, 0.5))]),
        (3, True, [WHOLE, MIRROR, View((0.5, 0.5)), View((0.5, 0.5), True), View((0, 0)), View((0, 0), True)]),
    ],
)
def test_which_views(count: int, mirrored: bool, expected: list[View]) -> None:
    assert views(count, mirrored) == expected


def test_no_view_is_there_twice_and_fewer_are_the_first_of_more() -> None:
    for mirrored in (False, True):
        every = views(MOST, mirrored)
        assert len(set(every)) == len(every) == (12 if mirrored else 6)
        for count in range(1, MOST + 1):
            assert views(count, mirrored) == every[: count * (1 + mirrored)]


@pytest.mark.parametrize("count", [0, -1, MOST + 1])
def test_there_are_no_more(count: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 6 views, received {count}"):
        views(count)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_view_keeps_the_shape_and_the_images(shape: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, *shape, 3)).astype(np.uint8)
    before = images.copy()
    shown = [seen(images, view) for view in views(MOST, True)]
    assert all(one.shape == images.shape and one.dtype == np.uint8 for one in shown)
    assert np.array_equal(images, before)
    different = 10 if shape == (8, 8) else 12  # of 8 pixels, a crop leaves 1: the middle is a corner
    assert len({one.tobytes() for one in shown}) == different


def test_what_the_views_show() -> None:
    assert np.array_equal(seen(PHOTOS, WHOLE), PHOTOS)
    assert np.array_equal(seen(PHOTOS, MIRROR), PHOTOS[:, :, ::-1])
    for place, (rows, columns) in {
        (0, 0): (slice(0, 14), slice(0, 21)),
        (0, 1): (slice(0, 14), slice(3, 24)),
        (1, 0): (slice(2, 16), slice(0, 21)),
        (1, 1): (slice(2, 16), slice(3, 24)),
        (0.5, 0.5): (slice(1, 15), slice(2, 23)),
    }.items():
        crop = cv2.resize(np.ascontiguousarray(PHOTOS[1, rows, columns]), (24, 16))
        assert np.array_equal(seen(PHOTOS, View(place))[1], crop), place
        assert np.array_equal(seen(PHOTOS, View(place, True))[1], crop[:, ::-1]), place


def test_the_mean_of_probabilities_is_one_and_the_plain_view_alone_keeps_its_bits() -> None:
    assert averaged(lambda view: predict(seen(PHOTOS, view)), views(1)).tobytes() == predict(PHOTOS).tobytes()
    for chosen in (views(1, True), views(6), views(6, True)):
        found = averaged(lambda view: predict(seen(PHOTOS, view)), chosen)
        expected = np.mean([predict(seen(PHOTOS, view)) for view in chosen], axis=0)
        assert found.dtype == np.float32 and np.allclose(found, expected, atol=1e-7)
        assert np.allclose(found.sum(axis=1), 1, atol=1e-6)


def test_with_mirror_images_an_image_and_its_mirror_image_are_predicted_alike() -> None:
    mirrored = np.ascontiguousarray(PHOTOS[:, :, ::-1])
    found = averaged(lambda view: predict(seen(PHOTOS, view)), views(1, True))
    of_mirrored = averaged(lambda view: predict(seen(mirrored, view)), views(1, True))
    assert np.array_equal(found, of_mirrored)
    assert not np.allclose(predict(PHOTOS), predict(mirrored))
