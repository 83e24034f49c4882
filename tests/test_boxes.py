"""Which of the detected objects is the main one, and the table of boxes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from temper import boxes
from temper.boxes import Boxes, choose, suppress
from temper.params import MainBox

LARGE, MIDDLE, SMALL = (0, 0, 90, 90), (40, 40, 60, 70), (80, 0, 95, 10)


def found(*rows: tuple[tuple[float, ...], float, str | None]) -> Boxes:
    corners = np.array([corners for corners, _, _ in rows], np.float32).reshape(-1, 4)
    return Boxes(corners, np.array([score for _, score, _ in rows], np.float32), [name for _, _, name in rows])


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


def test_suppression_is_greedy_from_the_best() -> None:
    """The second overlaps the first and goes, so the third, which overlaps the second alone, stays."""
    corners = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
    scores = np.array([0.7, 0.6, 0.5], np.float32)
    assert suppress(corners, scores, 0.3).tolist() == [0, 2]
    assert suppress(corners[::-1], scores[::-1], 0.3).tolist() == [2, 0]
    assert suppress(corners, np.full(3, 0.5, np.float32), 0.3).tolist() == [0, 2], "of equal scores the first"
    assert suppress(corners[:0], scores[:0], 0.3).tolist() == []


def test_the_table_reads_back_what_was_written(in_tmp_path: Path) -> None:
    written = {
        "a": found((LARGE, 0.5, "car"), (SMALL, 0.25, "bus")),
        "b": found(),
        "c": found(((0.1, 0.2, 1 / 3, 7), 1, None)),
    }
    assert boxes.write("boxes.parquet", "onnx", iter(written.items())) == 2
    read = dict(boxes.read("boxes.parquet"))
    assert list(read) == ["a", "c"]
    for image_id, inside in read.items():
        assert inside.corners.tolist() == written[image_id].corners.tolist()
        assert inside.scores.tolist() == written[image_id].scores.tolist()
        assert list(inside.classes) == list(written[image_id].classes)


def test_a_table_without_a_box(in_tmp_path: Path) -> None:
    assert boxes.write("boxes.parquet", "none", iter(())) == 0
    assert list(boxes.read("boxes.parquet")) == []
