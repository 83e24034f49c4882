"""`detect.detector: published`: the boxes that a source ships."""

from pathlib import Path
from typing import Any

import pytest

from stages.detect.detectors.published import Settings, find_boxes
from temper.base.errors import TemperError
from tests.toys.tables import gray, write_raw

SETTINGS = Settings(detector="published")


def test_published_boxes_are_clamped_and_photos_without_one_stay_whole(in_tmp_path: Path) -> None:
    data = [gray(1), gray(2), gray(3), gray(1)]
    images = write_raw(in_tmp_path, data, [(1, 2, 30, 40), None, (-5, 3, 70, 64.5), (2, 2, 9, 9)])
    found = dict(find_boxes(images, SETTINGS))
    ids = images["image_id"].to_pylist()
    assert list(found) == [ids[0], ids[2]]
    assert found[ids[0]].corners.tolist() == [[1, 2, 30, 40], [2, 2, 9, 9]], "published twice, with other boxes"
    assert found[ids[2]].corners.tolist() == [[0, 3, 64, 64]]
    assert found[ids[2]].scores.tolist() == [1] and list(found[ids[2]].classes) == [None]


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (None, "expected a source that publishes boxes, this one has none; choose another"),
        ((70, 0, 90, 20), r"expected a box inside the photo of 64x64, received \[70.0, 0.0, 90.0, 20.0\] for 1.jpg"),
        ((9, 0, 9, 20), "expected a box inside the photo"),
    ],
)
def test_published_boxes_that_are_none_end_in_one_line(in_tmp_path: Path, box: Any, message: str) -> None:
    images = write_raw(in_tmp_path, [gray(1), gray(2)], [box and (0, 0, 9, 9), box])
    with pytest.raises(TemperError, match=message):
        list(find_boxes(images, SETTINGS))
