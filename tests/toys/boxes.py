"""Boxes written by hand."""

import numpy as np

from temper.detections import Boxes


def found(*rows: tuple[tuple[float, ...], float, str | None]) -> Boxes:
    """Boxes from the corners, score and class of each."""
    corners = np.array([corners for corners, _, _ in rows], np.float32).reshape(-1, 4)
    return Boxes(corners, np.array([score for _, score, _ in rows], np.float32), [name for _, _, name in rows])
