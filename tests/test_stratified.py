"""The stratified draw: exact shares within each class, and no nearly equal pictures in two splits."""

import hashlib
import time
from collections import Counter

import numpy as np
import pytest

from stages.normalize.groups import connected_groups
from stages.normalize.splits import Pictures, Shares, group, hashed_split
from stages.normalize.stratified import advice, apportion, stratified_splits

SHARES = Shares(validation=0.15, test=0.2)


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def random_hashes(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def pictures_of(hashes: np.ndarray, distance: int | None = 4) -> Pictures:
    return group([digest(number) for number in range(len(hashes))], hashes, distance)


def drawn(classes: np.ndarray, hashes: np.ndarray | None = None, shares: Shares = SHARES, seed: int = 0) -> np.ndarray:
    """The stratified splits of a set without published splits; by default all pictures differ."""
    hashes = random_hashes(len(classes)) if hashes is None else hashes
    every = np.ones(len(classes), bool)
    return stratified_splits(pictures_of(hashes), classes, every, ~every, shares, seed)


def count(classes: np.ndarray, splits: np.ndarray, split: str) -> np.ndarray:
    return np.bincount(classes[splits == split], minlength=classes.max() + 1)


def with_bursts(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes and hashes of random pictures, of which a third nearly repeats another one, of any class."""
    random = np.random.default_rng(seed)
    hashes = random_hashes(count, seed)
    for row in range(0, count, 3):
        hashes[row] = hashes[random.integers(count)] ^ np.uint64(1 << int(random.integers(64)))
    return random.integers(0, classes, count), hashes


def test_every_class_of_five_validates_and_tests() -> None:
    """The hash draw leaves about a third of 120 classes of 5 without one or the other."""
    classes = np.repeat(np.arange(120), 5)
    hashed = np.array([hashed_split(str(hash_), 0, SHARES) for hash_ in random_hashes(600)])
    assert (count(classes, hashed, "validation") == 0).sum() > 30
    assert (count(classes, hashed, "test") == 0).sum() > 20
    splits = drawn(classes)
    assert (count(classes, splits, "test") == 1).all()  # 0.2 of 5
    assert (count(classes, splits, "validation") == 1).all()  # 0.75: at least one
    assert (count(classes, splits, "train") == 3).all()


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (1, {"train": 1}),
        (2, {"train": 1, "test": 1}),
        (3, {"train": 1, "validation": 1, "test": 1}),
        (4, {"train": 2, "validation": 1, "test": 1}),
        (20, {"train": 13, "validation": 3, "test": 4}),
        (100, {"train": 65, "validation": 15, "test": 20}),
    ],
)
def test_the_splits_of_a_class_by_its_size(images: int, expected: dict[str, int]) -> None:
    for seed in range(5):
        assert Counter(drawn(np.zeros(images, np.int64), seed=seed).tolist()) == expected


def test_each_class_has_its_share_rounded_and_the_totals_are_those_of_the_set() -> None:
    images = np.random.default_rng(0).integers(10, 300, 200)
    classes = np.repeat(np.arange(200), images)
    splits = drawn(classes)
    for split, share in (("test", 0.2), ("validation", 0.15)):
        of_class = count(classes, splits, split)
        assert (abs(of_class - share * images) < 1).all()
        assert of_class.sum() == round(share * len(classes))


def test_classes_that_round_up_to_test_round_down_to_validate() -> None:
    classes = np.repeat(np.arange(100), 5)
    splits = drawn(classes, shares=Shares(validation=0.3, test=0.3))  # 1.5 each
    tests, validations = count(classes, splits, "test"), count(classes, splits, "validation")
    assert tests.sum() == validations.sum() == 150
    assert (tests + validations == 3).all()


def test_the_largest_remainders_round_up() -> None:
    images, ties, room = np.array([3, 4, 9]), np.array([0.3, 0.2, 0.1]), np.array([9, 9, 9])
    assert apportion(images, 0.5, room, ties).tolist() == [1, 2, 5]  # 1.5 + 2 + 4.5 = 8: one of two halves
    assert apportion(images, 0.5, room, -ties).tolist() == [2, 2, 4]
    assert apportion(np.array([100]), 0.29, np.array([99]), np.array([0.5])).tolist() == [29]  # 28.999999999999996
    assert apportion(np.array([2, 2]), 0.1, np.array([1, 0]), np.array([0.5, 0.6])).tolist() == [1, 0]  # at least 1


@pytest.mark.parametrize("distance", [4, 0, None])
@pytest.mark.parametrize("classes", [3, 400])
def test_neither_the_order_of_rows_nor_their_names_change_anything(distance: int | None, classes: int) -> None:
    of_class, hashes = with_bursts(2000, classes, seed=1)
    sha256 = [digest(number % 1900) for number in range(2000)]
    order = np.random.default_rng(2).permutation(2000)
    every = np.ones(2000, bool)
    before = stratified_splits(group(sha256, hashes, distance), of_class, every, ~every, SHARES, 0)
    shuffled = group([sha256[row] for row in order], hashes[order], distance)
    assert (stratified_splits(shuffled, of_class[order], every, ~every, SHARES, 0) == before[order]).all()
    assert (stratified_splits(shuffled, of_class[order], every, ~every, SHARES, 1) != before[order]).any()


def test_nearly_equal_pictures_share_a_split_whatever_their_classes() -> None:
    for seed in range(5):
        classes, hashes = with_bursts(2000, 100, seed)
        splits = drawn(classes, hashes)
        pictures = pictures_of(hashes)
        assert len(pictures.pairs) > 600
        left, right = splits[pictures.first_of[pictures.pairs]].T
        assert (left == right).all()
        assert (splits == splits[pictures.first_of[pictures.group_of]]).all()
        assert (count(classes, splits, "train") > 0).all()


def test_classes_of_three_groups_have_every_split_however_large_the_groups() -> None:
    random = np.random.default_rng(0)
    for groups in (3, 4, 7):
        sizes = random.integers(1, 9, (50, groups))
        classes = np.repeat(np.arange(50), sizes.sum(axis=1))
        hashes = np.repeat(random_hashes(50 * groups), sizes.ravel())
        splits = drawn(classes, hashes)
        for split in ("train", "validation", "test"):
            assert (count(classes, splits, split) > 0).all()


def test_a_burst_larger_than_the_share_trains() -> None:
    hashes = np.concatenate([np.repeat(random_hashes(1), 100), random_hashes(20, seed=1)])
    for seed in range(20):
        splits = drawn(np.zeros(120, np.int64), hashes, seed=seed, shares=Shares(validation=0.05, test=0.1))
        assert set(splits[:100]) == {"train"}
        assert Counter(splits.tolist()) == {"train": 102, "validation": 6, "test": 12}


def test_a_picture_of_two_classes_is_drawn_as_one_of_the_rarer() -> None:
    """The rarer class has three groups, one of them shared with a class of fifty: it still has every split."""
    hashes = random_hashes(53)
    hashes[52] = hashes[0] ^ np.uint64(1)  # of the rarer class, and nearly the same as one of the other
    classes = np.array([1] * 50 + [0, 0, 0])
    for seed in range(20):
        splits = drawn(classes, hashes, seed=seed)
        assert set(splits[50:]) == {"train", "validation", "test"} and splits[0] == splits[52]


def test_published_splits_stay_and_nothing_near_them_is_drawn() -> None:
    hashes = random_hashes(200)
    fixed = np.arange(200) >= 150
    hashes[0] = hashes[199] ^ np.uint64(1)  # nearly a published picture
    hashes[1] = hashes[0] ^ np.uint64(6)  # nearly that one: both train, or they would be apart
    classes = np.arange(200) % 5
    for seed in range(20):
        splits = stratified_splits(pictures_of(hashes), classes, ~fixed, fixed, Shares(0.2, 0.0), seed)
        assert splits[0] == splits[1] == "train" and set(splits[fixed]) == {"train"}
        assert "test" not in splits
        free = np.arange(200)[2:150]
        assert Counter(classes[free][splits[free] == "validation"].tolist()) == dict.fromkeys(range(5), 6)


def test_rows_that_take_no_part_move_none() -> None:
    """Auxiliary rows: neither do they join two groups, nor do they count for a share."""
    hashes = random_hashes(100)
    hashes[99] = hashes[0] ^ np.uint64(7)
    hashes[1] = hashes[99] ^ np.uint64(7 << 20)  # near it, but not near row 0
    every, drawable = np.ones(100, bool), np.arange(100) < 99
    classes, pictures = np.zeros(100, np.int64), pictures_of(hashes)
    assert len(set(connected_groups(pictures, every)[[0, 1, 99]].tolist())) == 1
    for seed in range(20):
        splits = stratified_splits(pictures, classes, drawable, ~every, SHARES, seed)
        assert (splits[:99] == drawn(classes[:99], hashes[:99], seed=seed)).all() and splits[99] == "train"


def test_one_share_moves_no_image_of_the_other() -> None:
    classes = np.repeat(np.arange(20), 50)
    few = drawn(classes, shares=Shares(0.1, 0.1))
    for split, shares in (("validation", Shares(0.3, 0.1)), ("test", Shares(0.1, 0.3))):
        many = drawn(classes, shares=shares)
        other = "test" if split == "validation" else "validation"
        assert ((few == other) == (many == other)).all()
        assert ((few == split) <= (many == split)).all()


def test_a_share_of_nothing_draws_nothing() -> None:
    classes = np.repeat(np.arange(20), 3)
    assert set(drawn(classes, shares=Shares(0.0, 0.0))) == {"train"}
    assert set(drawn(classes, shares=Shares(0.0, 0.1))) == {"train", "test"}
    assert (count(classes, drawn(classes, shares=Shares(0.2, 0.0)), "validation") == 1).all()
    assert len(drawn(np.zeros(0, np.int64))) == 0


def test_connected_groups_are_those_of_a_search() -> None:
    for seed in range(5):
        _, hashes = with_bursts(600, 1, seed)
        pictures = pictures_of(hashes)
        among = np.random.default_rng(seed).random(600) < 0.8
        near = np.bitwise_count(hashes[:, None] ^ hashes) <= 4
        unseen, found = set(np.flatnonzero(among).tolist()), connected_groups(pictures, among)
        assert (found[~among] == -1).all()
        while unseen:
            component, border = set(), {min(unseen)}
            while border:
                component |= border
                border = {other for row in border for other in np.flatnonzero(near[row] & among).tolist()} - component
            numbers = set(found[sorted(component)].tolist())
            assert len(numbers) == 1 and component == set(np.flatnonzero(found == numbers.pop()).tolist())
            unseen -= component


def test_a_long_chain_is_one_group_within_a_second() -> None:
    """Frames of a film: each nearly the same as the next one."""
    rows = 300_000
    order = np.random.default_rng(0).permutation(rows)
    pairs = np.sort(np.stack([order[:-1], order[1:]], axis=1), axis=1)
    chain = Pictures([], np.arange(rows), np.arange(rows), pairs, pairs[:0])
    start = time.perf_counter()
    assert (connected_groups(chain, np.ones(rows, bool)) == 0).all()
    assert time.perf_counter() - start < 10  # about 0.2 s on an idle core


@pytest.mark.parametrize(
    ("classes", "splits", "shares", "expected"),
    [
        (["a"] * 3 + ["b"] * 3, ["train", "validation", "test"] * 2, SHARES, None),
        (
            ["a"] * 3 + ["b"] * 3,
            ["train", "train", "test", "train", "validation", "test"],
            SHARES,
            "1 of 2 classes has no validation image; normalize.draw: stratified gives every class of three images or "
            "more one of each (use it for sets that do not grow)",
        ),
        (
            ["a"] * 3 + ["b"] * 3,
            ["train"] * 6,
            SHARES,
            "2 of 2 classes have no validation image and 2 no test image; normalize.draw: stratified gives every class "
            "of three images or more one of each (use it for sets that do not grow)",
        ),
        (
            ["a"] * 3 + ["b"] * 3,
            ["train"] * 6,
            Shares(0.0, 0.2),
            "2 of 2 classes have no test image; normalize.draw: stratified gives every class of three images or more "
            "one (use it for sets that do not grow)",
        ),
        (["a"] * 3 + ["b"] * 3, ["train"] * 6, Shares(0.0, 0.0), None),  # both published: no draw mends that
        (["a", "b"], ["train", "train"], SHARES, None),  # one image each: neither does
    ],
    ids=str,
)
def test_advice(classes: list[str], splits: list[str], shares: Shares, expected: str | None) -> None:
    assert advice(classes, splits, shares) == expected


def test_who_follows_the_advice_gets_no_more_of_it() -> None:
    classes = np.repeat(np.arange(120), 5)
    hashed = [hashed_split(str(hash_), 0, SHARES) for hash_ in random_hashes(600)]
    assert (line := advice(classes, hashed, SHARES)) is not None and "of 120 classes have no validation image" in line
    assert advice(classes, drawn(classes).tolist(), SHARES) is None
