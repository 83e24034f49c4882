"""Contact sheets: captioned rows of small pictures in one PNG."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from temper.base.atomic import atomic_file
from temper.photos import Pixels, resize

CELL = 96  # pixels of a picture's side
CAPTION = 18  # pixels of a caption's height
GAP = 4


def write_sheet(
    path: str | Path, strips: Sequence[tuple[str, Sequence[Pixels]]], per_strip: int, across: int, cell: int = CELL
) -> None:
    """Writes a PNG of captioned strips of pictures.

    Args:
        strips: (caption, pictures), each picture uint8 (height, width, 3) RGB; at most `per_strip` are shown.
        across: how many strips stand side by side.
        cell: pixels of a picture's side.
    """
    height, width = CAPTION + cell + GAP, per_strip * (cell + GAP) + 2 * GAP
    down = max(1, -(-len(strips) // across))
    sheet = np.full((down * height + GAP, min(across, max(1, len(strips))) * width, 3), 255, np.uint8)
    for number, (caption, pictures) in enumerate(strips):
        top, left = (number // across) * height, (number % across) * width + GAP
        _write_text(sheet[top : top + CAPTION, left : left + width - GAP], caption)
        for place, picture in enumerate(pictures[:per_strip]):
            x, y = left + place * (cell + GAP), top + CAPTION
            sheet[y : y + cell, x : x + cell] = resize(picture, cell, cell, "pad")
    with atomic_file(path) as partial:
        partial.write_bytes(cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes())


def _write_text(box: Pixels, text: str) -> None:
    """Writes one line of text into a white box of pixels, in place."""
    drawn = np.ascontiguousarray(box)
    cv2.putText(drawn, text, (0, CAPTION - 5), (30, 30, 30), cv2.FontFace("sans"), 12)
    box[:] = drawn
