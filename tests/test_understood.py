"""What fetch prints of a source: the classes and splits that were understood, and what is odd about them (law 14)."""

from stages.fetch.understood import Place, describe, facts


def test_what_was_understood_is_said_and_written_down() -> None:
    counts: dict[Place, int] = {
        ("training_set", "cats"): 1000,
        ("training_set", "dogs"): 800,
        ("test_set", "cats"): 98,
        ("test_set", "dogs"): 100,
    }
    assert describe(counts) == [
        "2 classes: cats (1,098), dogs (900)",
        "splits: training_set (train) 1,800, test_set (test) 198",
    ]
    assert facts(counts) == {
        "splits": {
            "training_set": {"means": "train", "images": 1800},
            "test_set": {"means": "test", "images": 198},
        },
        "classes": 2,
        "unlabelled": 0,
    }


def test_oddities_are_pointed_out() -> None:
    counts: dict[Place, int] = {
        (None, "Cat"): 20,
        (None, "cat "): 10,
        (None, "train"): 12,
        (None, "bee"): 0,
        (None, None): 1,
    }
    assert describe(counts) == [
        "4 classes: Cat (20), bee (0), cat  (10), train (12)",
        "splits: none published",
        "unlabelled: 1 image",
        "note: 1 class with fewer than 10 images: bee (0)",
        "note: classes that differ only by case, spaces, - or _: 'Cat' = 'cat '; see normalize.rename",
        "note: taken for classes, though named like splits: train",
    ]
    assert facts(counts)["unlabelled"] == 1


def test_splits_of_unknown_meaning_and_images_in_none_are_said() -> None:
    counts: dict[Place, int] = {("set1", "ant"): 10, ("set1", "bee"): 10, ("test", "ant"): 10, (None, None): 1}
    assert describe(counts)[1:] == [
        "splits: test (test) 10, set1 (unknown, see normalize.splits) 20; in no split 1",
        "unlabelled: 1 image",
    ]
    assert facts(counts)["splits"] == {"test": {"means": "test", "images": 10}, "set1": {"means": None, "images": 20}}


def test_ten_thousand_classes_take_a_few_short_lines() -> None:
    lines = describe({(split, f"class {n:05}"): 1 for split in ("train", "test") for n in range(10_000)})
    assert lines[0].startswith("10,000 classes: class 00000 (2), ") and lines[0].endswith(", ...")
    assert len(lines) <= 7 and max(map(len, lines)) < 200
