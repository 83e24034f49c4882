"""Bytes to a model's input: one way for all, with reduced decoding where nothing of it is seen."""

import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest

from temper import photos
from temper.parallel import ordered_map
from temper.photos import BadPhoto, Box, Pixels, decode, resize
from temper.preparation import Fit, Preparation, crop, prepare
from tests.toys.photos import toy_photo
from tests.toys.workspace import ROOT

FITS: list[Fit] = ["stretch", "crop", "pad"]
SQUARE = Preparation(48, 48, "crop", 0.1)


def picture(height: int, width: int) -> Pixels:
    """Smooth noise: shapes in every place, and edges as soft as a photo's."""
    coarse = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    smooth: Pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return smooth


def jpeg(height: int, width: int) -> bytes:
    return bytes(cv2.imencode(".jpg", picture(height, width), [cv2.IMWRITE_JPEG_QUALITY, 92])[1])


def full_way(data: bytes, preparation: Preparation, box: Box | None) -> Pixels:
    """What `prepare` gives, without any reduced decoding."""
    pixels = decode(data)
    if box is not None:
        pixels = crop(pixels, box, preparation.margin)
    return resize(pixels, preparation.height, preparation.width, preparation.fit)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("box", [None, (3.5, 2, 18, 20.2)])
@pytest.mark.parametrize("data", [toy_photo(1, 1), toy_photo(1, 1, 90), jpeg(95, 180), toy_photo(1, 1, 400)])
def test_without_a_large_jpeg_it_is_the_full_way_to_the_bit(data: bytes, box: Box | None, fit: Fit) -> None:
    preparation = Preparation(48, 32, fit, 0.1)
    prepared = prepare(data, preparation, box)
    assert prepared.shape == (48, 32, 3) and prepared.dtype == np.uint8
    assert np.array_equal(prepared, full_way(data, preparation, box))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("box", [None, (100.0, 50.0, 1000.0, 800.0), (400.3, 333.3, 890.0, 890.0)])
@pytest.mark.parametrize("sides", [(900, 1200), (901, 1203), (904, 1204), (1201, 907)])
def test_a_large_jpeg_is_as_good_as_the_full_way(sides: tuple[int, int], box: Box | None, fit: Fit) -> None:
    """It differs by 0.84 of 255 at most, on average, and is not the same: something was reduced."""
    data, preparation = jpeg(*sides), Preparation(48, 48, fit, 0.05)
    difference = np.abs(prepare(data, preparation, box).astype(int) - full_way(data, preparation, box))
    assert 0 < difference.mean() < 1.2


@pytest.mark.parametrize("box", [None, (40, 30, 80, 60), (300, 200, 700, 600), (0, 0, 1200, 900), (10, 10, 1100, 120)])
@pytest.mark.parametrize("sides", [(900, 1200), (1201, 907), (403, 1600)])
def test_the_part_that_is_used_is_decoded_at_twice_the_input(
    sides: tuple[int, int], box: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the photo itself has less."""
    monkeypatch.setattr(photos, "resize", lambda pixels, *_: pixels)
    used = prepare(jpeg(*sides), SQUARE, box)
    whole = picture(*sides) if box is None else crop(picture(*sides), box, SQUARE.margin)
    for side, full in zip(used.shape[:2], whole.shape[:2], strict=True):
        assert side >= min(2 * 48, full)


def test_the_same_arguments_give_the_same_pixels_on_any_thread() -> None:
    data = jpeg(901, 1203)
    first = prepare(data, SQUARE, (100, 100, 900, 800))
    again = ordered_map(lambda _: prepare(data, SQUARE, (100, 100, 900, 800)), range(24), threads=4)
    assert all(np.array_equal(first, pixels) for pixels in again)


@pytest.mark.parametrize("box", [(2000, 10, 2100, 50), (-50, -50, -10, -10), (30, 30, 30, 30)])
def test_a_box_that_holds_nothing_leaves_the_photo_whole(box: Any) -> None:
    data, preparation = jpeg(900, 1200), Preparation(48, 48, "stretch", 0)
    assert np.abs(prepare(data, preparation, box).astype(int) - prepare(data, preparation)).mean() < 1


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((20, 10, 60, 30), (16, 8, 64, 32)),
        ((0, 0, 30, 30), (0, 0, 33, 33)),
        ((80, 40, 100, 50), (78, 39, 100, 50)),
        ((20.2, 10.2, 59.8, 29.8), (16, 8, 64, 32)),
    ],
)
def test_a_crop_has_its_margin_and_stays_inside(box: Any, expected: tuple[int, int, int, int]) -> None:
    """Widened by a tenth of its own width and height, outwards to whole pixels, in a photo of 100x50."""
    pixels = np.arange(50 * 100 * 3, dtype=np.int64).reshape(50, 100, 3).astype(np.uint8)
    left, top, right, bottom = expected
    assert np.array_equal(crop(pixels, box, 0.1), pixels[top:bottom, left:right])


def test_bad_photos_stay_bad() -> None:
    with pytest.raises(BadPhoto, match="a truncated or corrupt JPEG"):
        prepare(jpeg(900, 1200)[:-200], SQUARE, (10, 10, 500, 500))


def test_an_unknown_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="expected fit to be one of stretch, crop, pad, received 'squeeze'"):
        Preparation(8, 8, "squeeze", 0)  # type: ignore[arg-type]


def test_it_needs_numpy_and_opencv_alone() -> None:
    """A server on an exported model, and a detector in an environment of its own, import nothing more."""
    code = "import sys, temper.preparation; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"pyarrow", "pydantic", "yaml", "keras", "tensorflow", "PIL", "pillow_heif"} & set(loaded.split())
    ours = "import sys, temper.preparation; print(*sorted(name for name in sys.modules if name.startswith('temper.')))"
    loaded = subprocess.run([sys.executable, "-c", ours], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert loaded.split() == ["temper.headers", "temper.photos", "temper.preparation"]
