"""Contact sheets: a PNG with rows of small pictures, each row with a caption."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from temper.base.atomic import atomic_file
from temper.photos import Pixels, resize
from temper.wrapping import wrap

CELL = 96  # the side of a picture in pixels
LINE = 17  # the height of a line of a caption in pixels
FONT_SIZE = 12
GAP = 4

Strip = tuple[str, Sequence[Pixels]]  # a caption and its pictures


def write_sheet(path: str | Path, strips: Sequence[Strip], per_strip: int, across: int, cell: int = CELL) -> None:
    """Writes a PNG of captioned strips of pictures. Captions are wrapped, never cut.

    Without strips nothing is written, so that nobody looks at a blank picture. DVC requires that every plot named in
    dvc.yaml exists; so for a sheet that may be missing, dvc.yaml names its folder instead.

    Args:
        strips: (caption, pictures), each picture uint8 (height, width, 3) RGB.
        per_strip: the most pictures of a strip that are shown.
        across: how many strips stand side by side.
        cell: the side of a picture in pixels.
    """
    if not strips:
        return
    width = per_strip * (cell + GAP) + GAP
    rows = [strips[start : start + across] for start in range(0, len(strips), across)]
    sheet = np.concatenate([_row(row, width, per_strip, cell, min(across, len(strips))) for row in rows])
    with atomic_file(path) as partial:
        partial.write_bytes(cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes())


def _row(strips: Sequence[Strip], width: int, per_strip: int, cell: int, across: int) -> Pixels:
    """Draws strips side by side, with room for the longest of their captions."""
    captions = [wrap(caption, width - 2 * GAP, _text_width) for caption, _ in strips]
    top = GAP + max(map(len, captions)) * LINE
    row: Pixels = np.full((top + cell + 2 * GAP, across * width, 3), 255, np.uint8)
    for place, ((_, pictures), lines) in enumerate(zip(strips, captions, strict=True)):
        left = place * width + GAP
        for number, line in enumerate(lines):
            bottom = top - (len(lines) - number - 1) * LINE - 5
            cv2.putText(row, line, (left, bottom), (30, 30, 30), cv2.FontFace("sans"), FONT_SIZE)
        for number, picture in enumerate(pictures[:per_strip]):
            x = left + number * (cell + GAP)
            row[top : top + cell, x : x + cell] = resize(picture, cell, cell, "pad")
    return row


def _text_width(text: str) -> float:
    """The width of a line of text in pixels."""
    x, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), cv2.FontFace("sans"), FONT_SIZE)
    return float(x + width)
