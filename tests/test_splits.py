"""Law 2: a split is decided for each image by its content and the seed."""

import hashlib
import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from stages.normalize.draw import draw
from stages.normalize.near_duplicates import near_pairs
from stages.normalize.splits import Placement, Shares, conflicts, group, hashed_split

SHARES = Shares(validation=0.1, test=0.2)


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def random_hashes(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def placed(
    numbers: list[int],
    hashes: np.ndarray,
    published: Sequence[str | None] | None = None,
    distance: int | None = 4,
    shares: Shares = SHARES,
    only_train: Sequence[int] = (),
    remove_leaks: bool = False,
) -> Placement:
    pictures = group([digest(n) for n in numbers], hashes[numbers], distance)
    extra = np.isin(np.arange(len(numbers)), only_train)
    published = published or [None] * len(numbers)
    given = {own for row, own in enumerate(published) if row not in only_train}  # no share of what is published
    shares = Shares(shares.validation * ("validation" not in given), shares.test * ("test" not in given))
    names = ["ant"] * len(numbers)
    return draw(pictures, published, extra, names, shares, 0, stratified=False, remove_leaks=remove_leaks).placement


def test_shares_are_met_on_average() -> None:
    splits = placed(list(range(10_000)), random_hashes(10_000)).splits
    assert abs(splits.count("test") - 2000) < 200 and abs(splits.count("validation") - 1000) < 150


def with_near_duplicates(count: int, every: int, seed: int) -> np.ndarray:
    """Random hashes, of which each `every`th nearly repeats another one."""
    random = np.random.default_rng(seed)
    hashes = random_hashes(count)
    for row in range(0, count, every):
        hashes[row] = hashes[random.integers(count)] ^ np.uint64(1 << int(random.integers(64)))
    return hashes


def test_added_images_move_none_of_the_old_ones_wherever_they_come() -> None:
    """Near-duplicates among them included: a folder's order is that of its names, not that of their coming."""
    hashes = with_near_duplicates(3000, every=4, seed=1)
    old = list(range(0, 3000, 3))
    every = np.random.default_rng(0).permutation(3000).tolist()
    before = dict(zip(old, placed(old, hashes).splits, strict=True))
    after = dict(zip(every, placed(every, hashes).splits, strict=True))
    assert {number: after[number] for number in old} == before


def test_nearly_the_same_pictures_that_are_used_share_a_split() -> None:
    hashes = with_near_duplicates(3000, every=2, seed=2)
    placement = placed(list(range(3000)), hashes)
    pairs = near_pairs(hashes, 4)
    assert len(pairs) > 1000
    apart = {(left, right) for left, right in pairs.tolist() if placement.splits[left] != placement.splits[right]}
    assert len(apart) > 100
    assert all(left in placement.repeats or right in placement.repeats for left, right in apart)
    assert not placement.leaks
    for row, twin in placement.repeats.items():  # the one that stays is near, and in a later split
        assert (int(hashes[row]) ^ int(hashes[twin])).bit_count() <= 4
        assert ("train", "validation", "test").index(placement.splits[row]) < ("train", "validation", "test").index(
            placement.splits[twin]
        )


def test_equal_bytes_share_a_split_even_when_pictures_are_not_compared() -> None:
    numbers = [0, 1, 2] * 200
    splits = placed(numbers, random_hashes(3), distance=None).splits
    assert splits[:3] * 200 == splits


def test_published_splits_are_kept_and_only_what_is_missing_is_drawn() -> None:
    published = ["train"] * 800 + ["test"] * 200
    splits = placed(list(range(1000)), random_hashes(1000), published).splits
    assert splits[800:] == ["test"] * 200
    assert "test" not in splits[:800] and 40 < splits[:800].count("validation") < 120
    everything = ["train", "validation", "test", "train"] * 100
    assert placed(list(range(400)), random_hashes(400), everything).splits == everything


def test_leaks_across_published_splits_are_found() -> None:
    hashes = random_hashes(6)
    hashes[3] = hashes[0]  # test repeats train, exactly
    hashes[4] = hashes[1] ^ np.uint64(3)  # test nearly repeats validation
    placement = placed(list(range(6)), hashes, ["train", "validation", "train", "test", "test", "train"])
    assert placement.leaks == {0: 3, 1: 4}
    assert placement.splits == ["train", "validation", "train", "test", "test", "train"]


def test_a_leak_between_a_published_and_a_drawn_split_is_found() -> None:
    hashes = random_hashes(400)
    published = ["validation"] + ["train"] * 399
    splits = placed(list(range(400)), hashes, published).splits
    drawn = splits.index("test")
    hashes[0] = hashes[drawn] ^ np.uint64(1)
    placement = placed(list(range(400)), hashes, published)
    assert placement.splits == splits and placement.leaks == {drawn: 0} and not placement.repeats


def test_rows_that_only_train_make_way_for_what_they_repeat() -> None:
    hashes = random_hashes(300)
    alone = placed(list(range(200)), hashes)
    test, train = alone.splits.index("test"), alone.splits.index("train")
    hashes[200], hashes[201] = hashes[test] ^ np.uint64(1), hashes[train] ^ np.uint64(1)
    published = [None] * 200 + ["test"] * 100  # what the second source calls its test split is nothing here
    placement = placed(list(range(300)), hashes, published, only_train=range(200, 300))
    assert placement.splits == alone.splits + ["train"] * 100
    assert placement.repeats == {200: test} and not placement.leaks
    given = placed(list(range(300)), hashes, ["test"] * 200 + [None] * 100, only_train=range(200, 300))
    assert set(given.repeats) == {200, 201} and not given.leaks  # never only reported


def test_pictures_under_two_classes_are_conflicts() -> None:
    hashes = random_hashes(8)
    hashes[1] = hashes[0]  # the same picture: another class
    hashes[3] = hashes[2] ^ np.uint64(5)  # nearly: another class
    hashes[5] = hashes[4]  # the same picture and class
    classes, every = np.array([0, 1, 2, 0, 1, 1, 0, 0]), np.ones(8, bool)
    pictures = group([digest(number) for number in range(8)], hashes, 4)
    assert conflicts(classes, every, pictures) == {0: 1, 1: 0, 2: 3, 3: 2}
    exact = group([digest(number // 2) for number in range(8)], hashes, None)
    assert conflicts(classes, every, exact) == {0: 1, 1: 0, 2: 3, 3: 2}
    assert conflicts(classes, np.arange(8) != 1, pictures) == {2: 3, 3: 2}


def near_in_split(hash_: int, split: str, shares: Shares) -> int:
    """A hash one or two bits away that is drawn into a split."""
    flips = [1 << bit | 1 << other for bit in range(64) for other in range(64)]
    return next(hash_ ^ flip for flip in flips if hashed_split(str(hash_ ^ flip), 0, shares) == split)


def test_a_reported_leak_hides_no_repeat() -> None:
    """A trains, B validates and nearly shows the same: A is out, with a published test picture near both as well."""
    shares, hashes = Shares(validation=0.1, test=0.0), random_hashes(202)
    published = ["train"] * 201 + ["test"]
    b = placed(list(range(202)), hashes, published).splits.index("validation")
    hashes[200] = near_in_split(int(hashes[b]), "train", shares)
    apart = placed(list(range(202)), hashes, published)
    assert apart.repeats == {200: b} and not apart.leaks
    hashes[201] = hashes[b] ^ np.uint64(1)
    both = placed(list(range(202)), hashes, published)
    assert both.repeats == {200: b} and both.leaks == {b: 201, 200: 201}
    removed = placed(list(range(202)), hashes, published, remove_leaks=True)
    assert removed.leaks == both.leaks and 200 not in removed.repeats  # out already


def test_of_a_chain_only_what_touches_what_stays_is_out() -> None:
    """A trains ~ B validates ~ C tests, A not near C: B makes way for C, so that A need not make way for B."""
    hashes = random_hashes(300)
    c = placed(list(range(300)), hashes).splits.index("test")
    flips = [sum(1 << bit for bit in bits) for bits in itertools.combinations(range(4, 30), 3)]
    b = near_in_split(int(hashes[c]), "validation", SHARES)
    train = (b ^ flip for flip in flips if hashed_split(str(b ^ flip), 0, SHARES) == "train")
    a = next(hash_ for hash_ in train if (hash_ ^ int(hashes[c])).bit_count() > 4)
    hashes[298], hashes[299] = b, a
    placement = placed(list(range(300)), hashes)
    assert placement.splits[298:] == ["validation", "train"]
    assert placement.repeats == {298: c}


@pytest.mark.parametrize("distance", [1, 2, 4, 6, 8])
def test_near_pairs_are_exactly_those_of_brute_force(distance: int) -> None:
    random = np.random.default_rng(distance)
    hashes = np.unique(random_hashes(300))
    for row in range(0, 300, 3):
        flips = random.choice(64, random.integers(1, distance + 3), replace=False)
        hashes[row] = hashes[row - 1] ^ np.uint64(sum(1 << int(bit) for bit in flips))
    hashes = np.unique(hashes)
    expected = [
        (i, j)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= distance
    ]
    assert [tuple(pair) for pair in near_pairs(hashes, distance)] == expected
    assert expected
