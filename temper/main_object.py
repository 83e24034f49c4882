"""Chooses the main object among the detected objects in a photo."""

import numpy as np

from temper.detections import Boxes, areas, suppress
from temper.photos import Box
from temper.settings.pack import MainBox


def choose(boxes: Boxes, height: int, width: int, settings: MainBox) -> int | None:
    """The index of the main object in `boxes`; `None` if no box of the wanted classes reaches the score.

    Overlapping boxes are suppressed across all wanted classes together: a pickup is often found both as a car and as a
    truck, and the box with the lower score may be the larger one.

    Args:
        height, width: of the photo, in pixels.
    """
    wanted = settings.classes
    named = np.array([wanted is None or name is None or name in wanted for name in boxes.classes], bool)
    usable = np.flatnonzero(named & (boxes.scores >= np.float32(settings.score)))
    if not len(usable):
        return None
    kept = usable[suppress(boxes.corners[usable], boxes.scores[usable], settings.overlap)]
    corners = boxes.corners[kept]
    if settings.pick == "largest":
        best = areas(corners).argmax()
    elif settings.pick == "most_central":
        centres = (corners[:, :2] + corners[:, 2:]) / 2
        best = np.hypot(*(centres - [width / 2, height / 2]).T).argmin()
    else:
        best = boxes.scores[kept].argmax()
    return int(kept[best])


def shorter_side(box: Box) -> float:
    """The length of the shorter side of a box, in pixels."""
    return min(box[2] - box[0], box[3] - box[1])
