"""`detect.detector: published`: the boxes that the source itself publishes, as Stanford Cars and CUB do."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyarrow as pa

from temper import raw
from temper.base.errors import TemperError
from temper.detections import Boxes
from temper.settings.detect import DetectorSettings


class Settings(DetectorSettings):
    """`detector: published` has no settings of its own."""

    detector: Literal["published"]


def find_boxes(images: pa.Table, settings: Settings) -> Iterator[tuple[str, Boxes]]:
    """The published boxes of each image, with score 1 and without a class.

    If images with equal bytes were published with different boxes, they get all of these boxes.

    Raises:
        TemperError: the source publishes no boxes, or a box lies entirely outside its photo.
    """
    published = raw.read_metadata_of(images)
    corners = np.stack([published[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1)  # nan: none
    if np.isnan(corners).all():
        raise TemperError(
            "detect.detector: published: expected a source that publishes boxes, this one has none; choose another"
        )
    size = np.stack([published[name].to_numpy() for name in ("width", "height")] * 2, axis=1)  # (N, 4)
    inside = np.clip(corners, 0, size).astype(np.float32)
    for row in np.flatnonzero((inside[:, :2] >= inside[:, 2:]).any(axis=1)):
        raise TemperError(
            f"detect.detector: published: expected a box inside the photo of {size[row, 0]}x{size[row, 1]}, received "
            f"{corners[row].tolist()} for {published['path'][int(row)]}; correct it in the source, or choose yolox"
        )
    by_image: dict[str, list[np.ndarray]] = {}
    for image_id, box in zip(images["image_id"].to_pylist(), inside, strict=True):
        same = by_image.setdefault(image_id, [])
        if not np.isnan(box).any() and not any(np.array_equal(box, other) for other in same):
            same.append(box)
    for image_id, boxes in by_image.items():
        if boxes:
            yield image_id, Boxes(np.stack(boxes), np.ones(len(boxes), np.float32), [None] * len(boxes))
