"""Augmentation: bounded, repeatable, and each transformation on its own, for photos of every shape."""

from typing import Any

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from temper.augmentation.augment import COUNT, PLACES, Magnitudes, augment, augment_images, magnitudes
from temper.settings.augmentation import Augmentation, RandAugment

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 36, 3)).astype(np.uint8)
# What follows `aug`, in the order of the random numbers; and what is set alone.
FOLLOWS = ("flip", "rotation", "zoom", "translation", "brightness", "contrast", "hue")
ALONE = ("vertical_flip", "crop", "grayscale", "blur", "jpeg", "erasing", "randaugment")
SHAPES = [(24, 36), (24, 72), (72, 24), (8, 8), (8, 24), (33, 33)]


def only(**magnitude: Any) -> Magnitudes:
    """These magnitudes and no others; RandAugment with two operations."""
    return Magnitudes(randaugment_ops=2, **magnitude)


def run_on(photo: np.ndarray, seed: int, **magnitude: float) -> np.ndarray:
    return augment(photo, only(**magnitude), np.random.default_rng(seed))


def run(seed: int, **magnitude: float) -> np.ndarray:
    return run_on(PHOTO, seed, **magnitude)


def smooth(height: int, width: int, gray: bool = False) -> np.ndarray:
    """A photo-like image: colours that change slowly."""
    rough = np.random.default_rng(1).integers(0, 256, (4, 4, 1 if gray else 3)).astype(np.uint8)
    resized: np.ndarray = cv2.resize(
        np.broadcast_to(rough, (4, 4, 3)).copy(), (width, height), interpolation=cv2.INTER_CUBIC
    )
    return resized


def images_of(photo: np.ndarray, count: int) -> np.ndarray:
    return np.stack([photo] * count)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_magnitude_changes_nothing(shape: tuple[int, int]) -> None:
    photo = smooth(*shape)
    assert np.array_equal(run_on(photo, 0), photo)
    assert magnitudes(0, Augmentation()).any is False
    assert magnitudes(0, Augmentation(randaugment=RandAugment(magnitude=0))).any is False


def test_what_is_changed_is_a_copy() -> None:
    for name in (*FOLLOWS, *ALONE):
        photo = PHOTO.copy()
        for seed in range(4):
            run_on(photo, seed, **{name: 0.4})
        assert np.array_equal(photo, PHOTO), name


@pytest.mark.parametrize("name", [*FOLLOWS, *ALONE])
def test_each_transformation_acts_alone_and_repeatably(name: str) -> None:
    results = [run(seed, **{name: 0.3}) for seed in range(8)]
    assert all(np.array_equal(result, run(seed, **{name: 0.3})) for seed, result in enumerate(results))
    assert any(not np.array_equal(result, PHOTO) for result in results)
    assert all(result.shape == PHOTO.shape and result.dtype == np.uint8 for result in results)


@pytest.mark.parametrize("name", [*FOLLOWS, *ALONE])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("magnitude", [0.01, 0.3, 1.0])
def test_every_shape_is_kept(name: str, shape: tuple[int, int], magnitude: float) -> None:
    images = images_of(smooth(*shape), 12)
    augment_images(images, np.arange(12), only(**{name: magnitude}), 0, 0)
    assert images.shape == (12, *shape, 3) and images.dtype == np.uint8


@pytest.mark.parametrize("name", sorted({*FOLLOWS, *ALONE} - {"erasing"}))
def test_a_gray_photo_stays_gray(name: str) -> None:
    """All channels are treated alike; only the noise of erasing has colours."""
    photo = smooth(24, 36, gray=True)
    for seed in range(16):
        changed = run_on(photo, seed, **{name: 0.7})
        assert np.array_equal(changed[..., 0], changed[..., 1]) and np.array_equal(changed[..., 1], changed[..., 2])


@pytest.mark.parametrize("name", [*FOLLOWS, *ALONE])
def test_the_random_numbers_follow_from_seed_epoch_image_and_repeat(name: str) -> None:
    def changed(seed: int = 0, epoch: int = 0, first: int = 0, repeat: int = 0) -> bytes:
        images = images_of(PHOTO, 8)
        rows = np.arange(first, first + 8)
        augment_images(images, rows, only(**{name: 0.5}), seed, epoch, np.full(8, repeat))
        return images.tobytes()

    assert changed() == changed()
    different = [changed(), changed(seed=1), changed(epoch=1), changed(first=8), changed(repeat=1), changed(repeat=2)]
    assert len(set(different)) == len(different)


def test_an_image_is_changed_in_the_same_way_whatever_stands_beside_it() -> None:
    magnitude = only(rotation=0.1, crop=0.5, erasing=0.4, randaugment=0.3)
    together, alone = images_of(PHOTO, 6), images_of(PHOTO, 6)
    augment_images(together, np.arange(6), magnitude, 0, 0)
    for row in reversed(range(6)):
        augment_images(alone[row : row + 1], np.array([row]), magnitude, 0, 0, np.array([0]))
    assert np.array_equal(together, alone)


def test_later_transformations_leave_the_numbers_of_the_first_as_they_were() -> None:
    """So the results of settings that were there before keep their bits."""
    before, now = (np.random.default_rng([3, 5, 7]).uniform(-1, 1, count) for count in (8, COUNT))
    assert np.array_equal(now[:8], before)
    taken = [PLACES[name] for name in FOLLOWS]
    assert [place.start for place in taken] == [0, 1, 2, 3, 5, 6, 7]
    used = [number for place in PLACES.values() for number in range(place.start, place.stop)]
    assert used == list(range(COUNT))


def test_one_transformation_set_to_0_leaves_the_draws_of_the_others() -> None:
    assert np.array_equal(run(3, brightness=0.2, flip=0), run(3, brightness=0.2))
    erased = [run(seed, erasing=0.4) for seed in range(20)]
    also_mirrored = [run(seed, erasing=0.4, vertical_flip=0.1) for seed in range(20)]
    for one, other in zip(erased, also_mirrored, strict=True):
        noise = (one != PHOTO).any(axis=2) & (one != PHOTO[::-1]).any(axis=2)
        assert np.array_equal(one[noise], other[noise])


@pytest.mark.parametrize(("name", "direction"), [("flip", np.s_[:, ::-1]), ("vertical_flip", np.s_[::-1])])
def test_a_flip_mirrors_every_second_image(name: str, direction: Any) -> None:
    results = [run(seed, **{name: 0.1}) for seed in range(200)]
    mirrored = sum(np.array_equal(result, PHOTO[direction]) for result in results)
    untouched = sum(np.array_equal(result, PHOTO) for result in results)
    assert mirrored + untouched == 200 and 70 < mirrored < 130


def test_flips_are_the_same_with_and_without_interpolation() -> None:
    for seed in range(20):
        exact = run(seed, flip=0.1, vertical_flip=0.1)
        assert np.array_equal(run(seed, flip=0.1, vertical_flip=0.1, zoom=1e-12), exact)


def test_brightness_stays_within_its_magnitude() -> None:
    for seed in range(20):
        change = run(seed, brightness=0.1).astype(int) - PHOTO
        inside = (PHOTO > 30) & (PHOTO < 225)
        assert np.abs(change[inside]).max() <= 26 and np.ptp(change[inside]) <= 1


def test_translation_moves_by_its_magnitude_at_most() -> None:
    dot = np.zeros((41, 41, 3), np.uint8)
    dot[20, 20] = 255
    for seed in range(20):
        moved = run_on(dot, seed, translation=0.1)
        assert np.abs(np.argwhere(moved[..., 0] > 0) - 20).max() <= 5


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose red says how far down a pixel is, and whose green how far to the right, 0 to 255."""
    down, across = np.mgrid[0:height, 0:width]
    return np.stack([255 * (down + 0.5) / height, 255 * (across + 0.5) / width, 0 * down], axis=2).astype(np.uint8)


@pytest.mark.parametrize("shape", [(64, 64), (40, 120)])
@pytest.mark.parametrize("crop", [0.3, 0.92])
def test_a_crop_leaves_its_share_of_the_area(shape: tuple[int, int], crop: float) -> None:
    """And is inside the photo: nothing is mirrored into view."""
    photo, shares, ratios = coordinates(*shape), [], []
    for seed in range(200):
        seen = run_on(photo, seed, crop=crop).astype(float)
        assert (np.diff(seen[..., 0], axis=0) >= 0).all() and (np.diff(seen[..., 1], axis=1) >= 0).all()
        tall, wide = (seen[-1, 0, 0] - seen[0, 0, 0]) / 255, (seen[0, -1, 1] - seen[0, 0, 1]) / 255
        shares.append(tall * wide)
        ratios.append((tall + 0.01) / (wide + 0.01))
    assert 1 - crop - 0.05 < min(shares) < 1 - crop + 0.05 and max(shares) > 0.9
    assert abs(np.mean(shares) - (1 - crop / 2)) < 0.06
    assert 0.7 < min(ratios) < 0.95 and 1.05 < max(ratios) < 1.42


def test_grayscale_takes_the_colour_of_its_share_of_the_images() -> None:
    gray = [np.ptp(run(seed, grayscale=0.2), axis=2).max() == 0 for seed in range(300)]
    assert 35 < sum(gray) < 85


def test_blur_and_jpeg_grow_with_their_magnitude() -> None:
    photo = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8), (0, 0), 1)
    for name in ("blur", "jpeg"):
        changes = [
            np.mean([np.abs(run_on(photo, seed, **{name: magnitude}).astype(int) - photo).mean() for seed in range(10)])
            for magnitude in (0.05, 0.2, 0.6, 1)
        ]
        assert changes == sorted(changes) and changes[0] < changes[-1] / 2, name


def test_a_blur_has_at_most_its_standard_deviation() -> None:
    """A dot of 61 x 61 pixels, blurred by 0.5: up to a fortieth of its side."""
    dot = np.zeros((61, 61, 3), np.uint8)
    dot[30, 30] = 255
    distances = (np.arange(61) - 30.0) ** 2
    deviations = []
    for seed in range(30):
        weights = run_on(dot, seed, blur=0.5)[..., 0].astype(float).sum(axis=0)
        deviations.append(np.sqrt((distances * weights).sum() / max(weights.sum(), 1)))
    assert 0.9 < max(deviations) < 61 / 40


def test_aug_sets_all_but_those_set_alone() -> None:
    chosen = magnitudes(0.2, Augmentation(hue=0, zoom=0.5, crop=0.4))
    assert (chosen.hue, chosen.zoom, chosen.flip, chosen.rotation, chosen.crop) == (0, 0.5, 0.2, 0.2, 0.4)
    plain = magnitudes(0.2, Augmentation())
    assert {name: getattr(plain, name) for name in PLACES} == dict.fromkeys(FOLLOWS, 0.2) | dict.fromkeys(ALONE, 0)


def test_randaugment_is_chosen_by_one_key() -> None:
    chosen = magnitudes(0, Augmentation.model_validate({"randaugment": {"magnitude": 0.4}}))
    assert (chosen.randaugment, chosen.randaugment_ops, chosen.any) == (0.4, 2, True)


@pytest.mark.parametrize(
    "wrong",
    [{"crop": 1.1}, {"erasing": -0.1}, {"randaugment": {"ops": 0}}, {"randaugment": {"ops": 11}}, {"mixup": 0.2}],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Augmentation.model_validate(wrong)
