"""Which of the detected objects is the main one."""

from typing import Any

import pytest

from temper.main_object import choose, shorter_side
from temper.settings.pack import MainBox
from tests.toys.boxes import found

LARGE, MIDDLE, SMALL = (0, 0, 90, 90), (40, 40, 60, 70), (80, 0, 95, 10)


def settings(**changes: Any) -> MainBox:
    values = {"classes": ["car", "truck"], "score": 0.3, "overlap": 0.45, "pick": "largest", "min_box": 0}
    return MainBox.model_validate(values | changes)


@pytest.mark.parametrize(("pick", "chosen"), [("largest", 1), ("most_central", 2), ("highest_score", 3)], ids=str)
def test_the_index_is_of_all_boxes_though_another_class_is_larger(pick: str, chosen: int) -> None:
    """The person covers all the photo, is in its middle and is surest, and comes first."""
    inside = found(((0, 0, 100, 100), 0.99, "person"), (LARGE, 0.4, "car"), (MIDDLE, 0.5, "truck"), (SMALL, 0.9, "car"))
    assert choose(inside, 100, 100, settings(pick=pick)) == chosen
    assert choose(inside, 100, 100, settings(pick=pick, classes=["person"])) == 0
    assert choose(inside, 100, 100, settings(pick=pick, classes=["bus"])) is None


def test_most_central_measures_across_and_down_each_by_its_side() -> None:
    inside = found(((0, 40, 20, 60), 0.9, "car"), ((80, 0, 100, 20), 0.9, "car"))
    assert choose(inside, height=100, width=20, settings=settings(pick="most_central")) == 0
    assert choose(inside, height=20, width=180, settings=settings(pick="most_central")) == 1


def test_one_suppression_over_all_classes_drops_the_larger_weaker_twin() -> None:
    inside = found(((10, 10, 60, 50), 0.9, "car"), ((8, 8, 64, 54), 0.5, "truck"))
    assert choose(inside, 100, 100, settings()) == 0
    assert choose(inside, 100, 100, settings(overlap=1)) == 1
    assert choose(inside, 100, 100, settings(classes=["truck"])) == 1, "what is not wanted suppresses nothing"


def test_weak_boxes_are_not_chosen_and_the_score_itself_is_enough() -> None:
    inside = found((LARGE, 0.3, "car"), (SMALL, 0.6, "car"))
    assert choose(inside, 100, 100, settings(score=0.3)) == 0
    assert choose(inside, 100, 100, settings(score=0.31)) == 1
    assert choose(inside, 100, 100, settings(score=0.61)) is None
    assert choose(found(), 100, 100, settings(score=0)) is None


def test_published_boxes_count_whatever_the_classes_are() -> None:
    assert choose(found((SMALL, 1, None)), 100, 100, settings(classes=["bird"])) == 0


def test_without_classes_any_object_counts() -> None:
    inside = found(((0, 0, 100, 100), 0.4, "person"), (SMALL, 0.9, "car"))
    assert choose(inside, 100, 100, settings(classes=None)) == 0
    assert choose(inside, 100, 100, settings(classes=[])) is None


@pytest.mark.parametrize(("box", "side"), [((0, 0, 3, 7), 3), ((2, 1, 9, 5.5), 4.5)])
def test_the_shorter_side(box: Any, side: float) -> None:
    assert shorter_side(box) == side
