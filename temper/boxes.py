"""Boxes around objects: everything that a detector found in each photo, above a low score.

Which box is the main object is decided later (temper/main_object.py), so that trying another score or another rule
runs no detector.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from temper import tables
from temper.photos import Box

PATH = "data/boxes.parquet"

BOXES = pa.schema(
    [
        ("image_id", pa.string()),
        ("x1", pa.float32()),  # pixels of the upright image
        ("y1", pa.float32()),
        ("x2", pa.float32()),
        ("y2", pa.float32()),
        ("score", pa.float32()),
        ("class_name", pa.string()),
    ]
)


@dataclass(frozen=True)
class Boxes:
    """What was found in one photo, best score first.

    Attributes:
        corners: float32 (n, 4): x1, y1, x2, y2 in pixels of the upright image, inside of it.
        scores: float32 (n,), 0 to 1.
        classes: a name each; `None` where boxes were published without one.
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
    """Greedy non-maximum suppression: the indices of the boxes that stay, best score first; of equal scores the first.

    Args:
        overlap: a box is dropped if its intersection over union with a better box that stays is larger than this.
    """
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        waiting = waiting[intersection_over_union(corners[best], corners[waiting]) <= overlap]
    return np.array(kept, np.intp)


def intersection_over_union(box: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
    """The intersection over union of a box, (4,), with each of others, (n, 4): 0 to 1, (n,)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = sides.clip(0).prod(axis=1)
    union = areas(box[None]) + areas(others) - common
    ratios: npt.NDArray[np.floating] = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return ratios


def areas(corners: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Square pixels of boxes (n, 4)."""
    sides: npt.NDArray[np.float32] = corners[:, 2:] - corners[:, :2]
    return sides[:, 0] * sides[:, 1]


def write(path: str | Path, detector: str, sha256: str | None, found: Iterator[tuple[str, Boxes]]) -> int:
    """Writes the table of boxes, a row for each box, images in the given order; returns how many images have boxes.

    Args:
        sha256: of the detector's weights, where it has any; kept with the detector's name in the file's metadata.
        found: image_id and its boxes; no image_id twice.
    """
    corners, scores = [np.empty((0, 4), np.float32)], [np.empty(0, np.float32)]
    image_ids: list[str] = []
    classes: list[str | None] = []
    images = 0
    for image_id, boxes in found:
        images += len(boxes) > 0
        image_ids += [image_id] * len(boxes)
        corners.append(boxes.corners)
        scores.append(boxes.scores)
        classes += boxes.classes
    sides = np.concatenate(corners).T.copy()  # (4, N)
    columns = dict(zip(("x1", "y1", "x2", "y2"), sides, strict=True)) | {"score": np.concatenate(scores)}
    columns |= {"image_id": image_ids, "class_name": classes}
    tables.write(path, BOXES.with_metadata({"detector": detector, "sha256": sha256 or ""}), columns)
    return images


def read_detector(path: str | Path) -> tuple[str, str | None]:
    """The detector's name and the checksum of its weights, of a table that `write` wrote."""
    kept = tables.read_metadata(path, BOXES)
    return kept["detector"], kept["sha256"] or None


def read(path: str | Path) -> Iterator[tuple[str, Boxes]]:
    """The image_id of each image that has boxes, and these, as `write` wrote them."""
    table = tables.read(path, BOXES)
    corners = np.stack([table[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1)  # (N, 4)
    scores = table["score"].to_numpy()
    names = table["class_name"].combine_chunks()
    runs = pc.run_end_encode(table["image_id"].combine_chunks())
    start = 0
    for image_id, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        yield image_id, Boxes(corners[start:end], scores[start:end], names[start:end].to_pylist())
        start = end
