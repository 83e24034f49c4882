"""The boxes that a detector found in one photo, and non-maximum suppression. Needs only NumPy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from temper.photos import Box


@dataclass(frozen=True)
class Boxes:
    """The boxes found in one photo, best score first.

    Attributes:
        corners: float32 (n, 4): x1, y1, x2, y2 in pixels of the upright image, all within the image.
        scores: float32 (n,), 0 to 1.
        classes: the class name of each box; `None` for a box that was published without one.
    """

    corners: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: Sequence[str | None]

    def __len__(self) -> int:
        return len(self.scores)

    def box(self, index: int) -> Box:
        """Box number `index`."""
        x1, y1, x2, y2 = self.corners[index].tolist()
        return x1, y1, x2, y2


def suppress(corners: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], overlap: float) -> npt.NDArray[np.intp]:
    """Greedy non-maximum suppression: the indices of the kept boxes, best score first; on ties, the first box first.

    Args:
        overlap: a box is dropped if its intersection over union with a better, kept box is larger than this.
    """
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        waiting = waiting[intersection_over_union(corners[best], corners[waiting]) <= overlap]
    return np.array(kept, np.intp)


def intersection_over_union(box: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
    """The intersection over union of one box, (4,), with each of n others, (n, 4): 0 to 1, (n,)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = sides.clip(0).prod(axis=1)
    union = areas(box[None]) + areas(others) - common
    ratios: npt.NDArray[np.floating] = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return ratios


def areas(corners: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The areas of boxes, (n, 4), in square pixels, (n,)."""
    sides: npt.NDArray[np.float32] = corners[:, 2:] - corners[:, :2]
    return sides[:, 0] * sides[:, 1]
