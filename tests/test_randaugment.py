"""RandAugment: its operations against Pillow's, which the paper used, and how they are drawn."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from temper.augmentation.randaugment import MOST_OPERATIONS, OPERATIONS, randaugment

PHOTO = cv2.resize(
    np.random.default_rng(0).integers(20, 230, (6, 9, 3)).astype(np.uint8), (72, 48), interpolation=cv2.INTER_CUBIC
)
WITHOUT_MAGNITUDE = {"identity", "autocontrast", "equalize"}
WITH_SIGN = {"rotate", "colour", "contrast", "brightness", "sharpness"} | {
    f"{way} {axis}" for way in ("shear", "translate") for axis in "xy"
}

# (operation, magnitude) -> the same in Pillow, with the values of torchvision's RandAugment, and the most that a level
# may differ: Pillow rounds down, and equalizes by whole steps.
PILLOW: list[tuple[str, float, Callable[[Image.Image], Image.Image], int]] = [
    ("autocontrast", 0.3, ImageOps.autocontrast, 1),
    ("equalize", 0.3, ImageOps.equalize, 12),
    ("solarize", 0.5, lambda photo: ImageOps.solarize(photo, 128), 0),
    ("solarize", -1, lambda photo: ImageOps.solarize(photo, 1), 0),
    ("posterize", 1, lambda photo: ImageOps.posterize(photo, 4), 0),
    ("posterize", 0.5, lambda photo: ImageOps.posterize(photo, 6), 0),
    ("colour", 1, lambda photo: ImageEnhance.Color(photo).enhance(1.9), 2),
    ("colour", -0.5, lambda photo: ImageEnhance.Color(photo).enhance(0.55), 2),
    ("contrast", 0.5, lambda photo: ImageEnhance.Contrast(photo).enhance(1.45), 2),
    ("contrast", -1, lambda photo: ImageEnhance.Contrast(photo).enhance(0.1), 2),
    ("brightness", 0.3, lambda photo: ImageEnhance.Brightness(photo).enhance(1.27), 1),
    ("brightness", -1, lambda photo: ImageEnhance.Brightness(photo).enhance(0.1), 1),
    ("sharpness", 1, lambda photo: ImageEnhance.Sharpness(photo).enhance(1.9), 2),
    ("sharpness", -1, lambda photo: ImageEnhance.Sharpness(photo).enhance(0.1), 2),
    ("rotate", 1, lambda photo: photo.rotate(30, Image.Resampling.BILINEAR), 12),
    ("rotate", -0.5, lambda photo: photo.rotate(-15, Image.Resampling.BILINEAR), 12),
]


@pytest.mark.parametrize(("name", "magnitude", "pillow", "most"), PILLOW)
def test_an_operation_is_that_of_pillow(
    name: str, magnitude: float, pillow: Callable[[Image.Image], Image.Image], most: int
) -> None:
    """In the middle of the photo, which what comes into view does not reach."""
    ours, theirs = OPERATIONS[name](PHOTO, magnitude), np.asarray(pillow(Image.fromarray(PHOTO)))
    middle = np.s_[18:30, 26:46] if name == "rotate" else np.s_[1:-1, 1:-1]
    assert np.abs(ours.astype(int) - theirs)[middle].max() <= most
    assert not np.array_equal(ours, PHOTO)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_translate_and_shear_move_as_far_as_the_paper_says(axis: str) -> None:
    """A bright line through the centre, and where it is after magnitude 1."""
    line = np.zeros((101, 101, 3), np.uint8)
    line[:, 50] = 255

    def done(name: str) -> np.ndarray:
        """The line as columns, also where it was moved down instead of across."""
        if axis == "x":
            return OPERATIONS[name](line, 1)[..., 0]
        return OPERATIONS[name](np.ascontiguousarray(line.swapaxes(0, 1)), 1)[..., 0].T

    moved, sheared = done(f"translate {axis}"), done(f"shear {axis}")
    assert abs(np.argmax(moved[50]) - (50 + 101 * 150 / 331)) <= 1
    assert abs(np.argmax(sheared[0]) - (50 - 0.3 * 50)) <= 1 and abs(np.argmax(sheared[100]) - (50 + 0.3 * 50)) <= 1


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_grows_from_nothing_and_its_sign_matters(name: str) -> None:
    operation = OPERATIONS[name]
    if name in WITHOUT_MAGNITUDE:
        assert np.array_equal(operation(PHOTO, 0.1), operation(PHOTO, -1))
        return
    assert np.array_equal(operation(PHOTO, 0), PHOTO)
    assert not np.array_equal(operation(PHOTO, 0.9), PHOTO)
    assert np.array_equal(operation(PHOTO, 0.9), operation(PHOTO, -0.9)) == (name not in WITH_SIGN)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("level", [0, 90, 255])
def test_an_operation_takes_an_image_of_one_colour(name: str, level: int) -> None:
    flat = np.full((9, 27, 3), level, np.uint8)
    changed = OPERATIONS[name](flat, 0.5)
    assert changed.shape == flat.shape and changed.dtype == np.uint8 and np.ptp(changed) == 0
    if name in ("autocontrast", "equalize"):
        assert np.array_equal(changed, flat), "there is nothing to stretch"


def test_there_are_the_fourteen_of_the_paper_each_drawn_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(OPERATIONS) == 14
    drawn: list[tuple[str, float]] = []

    def noted(name: str) -> Callable[[np.ndarray, float], np.ndarray]:
        def operation(pixels: np.ndarray, magnitude: float) -> np.ndarray:
            drawn.append((name, magnitude))
            return pixels

        return operation

    for name in [*OPERATIONS]:
        monkeypatch.setitem(OPERATIONS, name, noted(name))
    for seed in range(1400):
        draw = np.random.default_rng(seed).uniform(-1, 1, 2 * MOST_OPERATIONS)
        randaugment(PHOTO, 2, 0.3, draw)
    assert len(drawn) == 2800 and {abs(magnitude) for _, magnitude in drawn} == {0.3}
    for name in OPERATIONS:
        assert 150 < sum(one == name for one, _ in drawn) < 250, name
    assert 1300 < sum(magnitude > 0 for _, magnitude in drawn) < 1500


def test_the_ends_of_the_range_draw_the_first_and_the_last_operation() -> None:
    first, last = np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    assert np.array_equal(randaugment(PHOTO, 1, 0.5, first), PHOTO)
    assert np.array_equal(randaugment(PHOTO, 1, 0.5, last), OPERATIONS["translate y"](PHOTO, 0.5))


def test_operations_follow_one_another() -> None:
    draw = np.array([2 * 9.5 / 14 - 1, 1, 2 * 4.5 / 14 - 1, 1])  # sharpness, then solarize
    expected = OPERATIONS["solarize"](OPERATIONS["sharpness"](PHOTO, 0.4), 0.4)
    assert np.array_equal(randaugment(PHOTO, 2, 0.4, draw), expected)
