"""Contact sheets: captions that are wrapped, and no blank picture."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from temper.sheets import write_sheet
from temper.wrapping import wrap


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("rose", ["rose"]),
        ("a laughing gull", ["a laughing", "gull"]),
        ("x" * 23, ["x" * 10, "x" * 10, "x" * 3]),
        ("a " + "x" * 12, ["a", "x" * 10, "xx"]),
        ("xxxxxxxxxxxx b", ["xxxxxxxxxx", "xx b"]),
        ("", [""]),
    ],
)
def test_text_is_wrapped_and_nothing_is_lost(text: str, lines: list[str]) -> None:
    assert wrap(text, 10, len) == lines


def test_a_long_caption_makes_the_sheet_higher(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    heights = []
    for caption in ("gull", "a laughing gull of the western coast, taken for another one"):
        write_sheet(tmp_path / "sheet.png", [(caption, [pixels])], per_strip=1, across=2)
        sheet = cv2.imread(str(tmp_path / "sheet.png"))
        assert sheet is not None
        assert (sheet[:, -2:] == 255).all(), "text runs out of the sheet"
        heights.append(sheet.shape[0])
    assert heights[1] >= heights[0] + 3 * 15


def test_nothing_to_show_is_no_picture(tmp_path: Path) -> None:
    write_sheet(tmp_path / "sheet.png", [], per_strip=1, across=2)
    assert list(tmp_path.iterdir()) == []
