"""Which of the detected objects in a photo is the main one."""

import numpy as np

from temper.detections import Boxes, areas, suppress
from temper.photos import Box
from temper.settings.pack import MainBox


def choose(boxes: Boxes, height: int, width: int, settings: MainBox) -> int | None:
    """The index of the main object in `boxes`, or `None` if nothing of the wanted classes reaches the score.

    Overlapping boxes are suppressed over all wanted classes together: a pickup is often found both as a car and as a
    truck, and the weaker of the two boxes may be the larger.
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
