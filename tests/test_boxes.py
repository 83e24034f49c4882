"""Boxes: their areas, overlaps and suppression, and the table of them."""

from pathlib import Path

import numpy as np
import pytest

from temper import boxes
from temper.detections import areas, intersection_over_union, suppress
from tests.toys.boxes import found


def test_suppression_is_greedy_from_the_best() -> None:
    """The second overlaps the first and goes, so the third, which overlaps the second alone, stays."""
    corners = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
    scores = np.array([0.7, 0.6, 0.5], np.float32)
    assert suppress(corners, scores, 0.3).tolist() == [0, 2]
    assert suppress(corners[::-1], scores[::-1], 0.3).tolist() == [2, 0]
    assert suppress(corners, np.full(3, 0.5, np.float32), 0.3).tolist() == [0, 2], "of equal scores the first"
    assert suppress(corners[:0], scores[:0], 0.3).tolist() == []


def test_areas_and_overlaps() -> None:
    corners = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 5, 5], [3, 3, 3, 3]], np.float32)
    assert areas(corners).tolist() == [100, 100, 100, 25, 0]
    assert intersection_over_union(corners[0], corners) == pytest.approx([1, 1 / 3, 0, 0.25, 0])
    assert intersection_over_union(corners[4], corners[4:]).tolist() == [0], "of no area"


def test_the_table_reads_back_what_was_written(in_tmp_path: Path) -> None:
    written = {
        "a": found(((0, 0, 90, 90), 0.5, "car"), ((80, 0, 95, 10), 0.25, "bus")),
        "b": found(),
        "c": found(((0.1, 0.2, 1 / 3, 7), 1, None)),
    }
    assert boxes.write("boxes.parquet", "yolox", "0" * 64, iter(written.items())) == 2
    assert boxes.read_detector("boxes.parquet") == ("yolox", "0" * 64)
    read = dict(boxes.read("boxes.parquet"))
    assert list(read) == ["a", "c"]
    for image_id, inside in read.items():
        assert inside.corners.tolist() == written[image_id].corners.tolist()
        assert inside.scores.tolist() == written[image_id].scores.tolist()
        assert list(inside.classes) == list(written[image_id].classes)


def test_a_table_without_a_box(in_tmp_path: Path) -> None:
    assert boxes.write("boxes.parquet", "none", None, iter(())) == 0
    assert boxes.read_detector("boxes.parquet") == ("none", None)
    assert list(boxes.read("boxes.parquet")) == []
