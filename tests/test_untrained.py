"""Every class has an image to train on, and as few images as possible move for it."""

import hashlib

import numpy as np
import pytest

from stages.normalize.splits import Pictures, Shares, group, hashed_split, hashed_splits, place
from stages.normalize.untrained import keep_one_to_train, kept_note

SHARES = Shares(validation=0.15, test=0.2)


def pictures_of(hashes: np.ndarray) -> Pictures:
    return group([hashlib.sha256(str(number).encode()).hexdigest() for number in range(len(hashes))], hashes, 4)


def random_hashes(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def hashes_of(*splits: str) -> np.ndarray:
    """Random hashes that the seed 0 draws into these splits."""
    drawn = {split: [] for split in ("train", "validation", "test")}  # type: dict[str, list[int]]
    for hash_ in random_hashes(2000, seed=7).tolist():
        drawn[hashed_split(str(hash_), 0, SHARES)].append(hash_)
    return np.array([drawn[split].pop() for split in splits], np.uint64)


def near(hash_: np.uint64, split: str) -> int:
    """A hash two bits away that the seed 0 draws into this split."""
    flips = [1 << bit | 1 << other for bit in range(64) for other in range(bit)]
    return next(int(hash_) ^ flip for flip in flips if hashed_split(str(int(hash_) ^ flip), 0, SHARES) == split)


def kept(
    classes: np.ndarray, hashes: np.ndarray, drawn: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hash draw of a set, its repeats, and what moves."""
    none = np.zeros(len(hashes), bool)
    splits = hashed_splits(pictures_of(hashes), ~none, SHARES, 0)
    placement = place(pictures_of(hashes), splits, none, none)
    repeats = none.copy()
    repeats[list(placement.repeats)] = True
    drawn = ~none if drawn is None else drawn
    moved = keep_one_to_train(pictures_of(hashes), classes, splits, drawn, repeats & drawn, SHARES, 0)
    return splits, repeats, moved


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_class_of_one_image_trains(split: str) -> None:
    hashes = hashes_of("train", "validation", "test", split)
    splits, _, moved = kept(np.array([0, 0, 0, 1]), hashes)
    assert moved.tolist() == [False, False, False, split != "train"] and splits[3] == split


def test_a_validation_image_moves_rather_than_a_test_image() -> None:
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        hashes = hashes_of("test", "validation", "test")[order]
        splits, _, moved = kept(np.zeros(3, np.int64), hashes)
        assert splits[moved].tolist() == ["validation"]


def test_the_image_nearest_to_training_moves_whatever_the_order() -> None:
    """So that it still trains when a share is made smaller, and the others stay."""
    for split in ("validation", "test"):
        hashes = hashes_of(*[split] * 6)
        _, _, moved = kept(np.zeros(6, np.int64), hashes)
        chosen = hashes[moved]
        assert len(chosen) == 1
        smaller = Shares(0.15 - 1e-9, 0.2)
        while not any(trains := [hashed_split(str(hash_), 0, smaller) == "train" for hash_ in hashes.tolist()]):
            smaller = Shares(smaller.validation - 1e-4, smaller.test - 1e-4)
        assert hashes[trains].tolist() == chosen.tolist()
        _, _, again = kept(np.zeros(6, np.int64), hashes[::-1])
        assert hashes[::-1][again].tolist() == chosen.tolist()


def test_nearly_equal_pictures_move_together() -> None:
    hashes = hashes_of("test", "test", "train", "train")
    hashes[1] = near(hashes[0], "validation")  # a class of this picture alone, which is out: the first row repeats it
    classes = np.array([0, 1, 0, 0])
    _, repeats, moved = kept(classes, hashes)
    assert repeats.tolist() == [False, True, False, False] and moved.tolist() == [True, True, False, False]


def test_a_training_image_that_a_new_one_repeats_keeps_training() -> None:
    """x trains, z tests; y comes, nearly x, and tests: x is out. z, an old test image, must not move for that."""
    x, z = hashes_of("train", "test")
    before = kept(np.zeros(2, np.int64), np.array([x, z]))
    assert not before[2].any()
    _, repeats, moved = kept(np.zeros(3, np.int64), np.array([x, z, near(x, "test")], np.uint64))
    assert repeats.tolist() == [True, False, False] and moved.tolist() == [True, False, True]


def test_rows_that_were_not_drawn_stay() -> None:
    """Published test images neither train nor move; a class of nothing else is for others to refuse."""
    hashes = hashes_of("test", "test")
    _, _, moved = kept(np.array([0, 1]), hashes, drawn=np.array([True, False]))
    assert moved.tolist() == [True, False]


def random_set(images: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    hashes = random_hashes(images, seed)
    for row in range(0, images, 4):
        hashes[row] = hashes[random.integers(images)] ^ np.uint64(1 << int(random.integers(64)))
    return random.integers(0, classes, images), hashes


def test_every_class_trains_and_no_picture_is_shared() -> None:
    for seed in range(5):
        classes, hashes = random_set(1500, 500, seed)
        splits, repeats, moved = kept(classes, hashes)
        assert moved.sum() > 20
        repeats &= ~moved
        after = np.where(moved, "train", splits)
        assert set(classes[~repeats & (after == "train")].tolist()) == set(classes.tolist())
        apart = (np.bitwise_count(hashes[:, None] ^ hashes) <= 4) & (after[:, None] != after)
        assert not (apart & ~repeats[:, None] & ~repeats).any()


def test_added_images_move_old_ones_only_in_classes_that_had_none_to_train_on() -> None:
    """The price of a class of one photo that trains: at most one group of a class goes back to test."""
    back, old_tests = 0, 0
    for seed in range(5):
        random = np.random.default_rng(seed)
        classes, hashes = random.integers(0, 400, 3000), random_hashes(3000, seed)
        before, _, moved_before = kept(classes[:1500], hashes[:1500])
        after, _, moved_after = kept(classes, hashes)
        was = np.where(moved_before, "train", before)
        now = np.where(moved_after, "train", after)[:1500]
        changed = was != now
        assert (changed <= moved_before).all()  # nothing that was left alone before moves now
        assert np.bincount(classes[:1500][changed], minlength=400).max() <= 1
        back += int((changed & (now == "test")).sum())
        old_tests += int((now == "test").sum())
    assert 0 < back < 0.05 * old_tests  # of classes of four images on average


def test_the_note_says_what_moved() -> None:
    splits = np.array(["validation", "test", "train", "test"])
    names = ["ant", "bee", "bee", "cat"]
    assert kept_note(names, splits, np.zeros(4, bool)) is None
    assert kept_note(names, splits, np.array([True, False, False, False])) == (
        "moved to train, because their classes had no image to train on: 1 of validation (ant)"
    )
    assert kept_note(names, splits, np.ones(4, bool)) == (
        "moved to train, because their classes had no image to train on: 1 of validation and 2 of test "
        "(ant, bee, cat); those of test go back once their class has another image to train on"
    )
