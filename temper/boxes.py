"""The table of boxes: all objects that a detector found in each photo, above a low score.

Which box is the main object is decided later (temper/main_object.py), so that trying another score or rule does not
run the detector again.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from temper import tables
from temper.detections import Boxes

PATH = "data/boxes.parquet"

BOXES = pa.schema(
    [
        ("image_id", pa.string()),
        ("x1", pa.float32()),  # in pixels of the upright image
        ("y1", pa.float32()),
        ("x2", pa.float32()),
        ("y2", pa.float32()),
        ("score", pa.float32()),
        ("class_name", pa.string()),
    ]
)


def write(path: str | Path, detector: str, sha256: str | None, found: Iterator[tuple[str, Boxes]]) -> int:
    """Writes the table of boxes, with a row for each box and the images in the given order.

    Args:
        detector: its name, which is stored in the file's metadata.
        sha256: the checksum of the detector's weights, also stored there; `None` if it has none.
        found: each image_id with its boxes; no image_id twice.

    Returns:
        how many images have boxes.
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
    """The detector's name and the checksum of its weights, from the metadata of a table that `write` wrote."""
    kept = tables.read_metadata(path, BOXES)
    return kept["detector"], kept["sha256"] or None


def read(path: str | Path) -> Iterator[tuple[str, Boxes]]:
    """Yields the image_id of each image that has boxes, with its boxes, in the order in which they were written."""
    table = tables.read(path, BOXES)
    corners = np.stack([table[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1)  # (N, 4)
    scores = table["score"].to_numpy()
    names = table["class_name"].combine_chunks()
    runs = pc.run_end_encode(table["image_id"].combine_chunks())
    start = 0
    for image_id, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        yield image_id, Boxes(corners[start:end], scores[start:end], names[start:end].to_pylist())
        start = end
