"""A raw table and its table of images, as `fetch` and `normalize` would write them."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from stages.fetch.__main__ import describe
from stages.fetch.source import Photo
from temper import raw
from temper.images import IMAGES

SOURCE = "photos"  # the name of the source


def gray(level: int, height: int = 64, width: int = 64) -> bytes:
    """An encoded photo of one gray level."""
    return bytes(cv2.imencode(".png", np.full((height, width, 3), level, np.uint8))[1])


def write_raw(folder: Path, data: list[bytes], published: list[Any] | None = None) -> pa.Table:
    """The raw table of these photos in `folder`/data/raw, in several parts, and its table of images, not written.

    Args:
        published: the box of each photo, or None for none.
    """
    below = folder / raw.FOLDER / SOURCE
    below.mkdir(parents=True)
    with raw.RawWriter(below, part_bytes=2**20, row_group_bytes=2**17) as writer:
        for number, (image, box) in enumerate(zip(data, published or [None] * len(data), strict=True)):
            writer.append(describe(Photo(f"{number}.jpg", "a", None, image, box=box)))
    metadata = raw.read_metadata([SOURCE], folder / raw.FOLDER)
    columns = {name: metadata[name] for name in ("source", "part", "row", "path")}
    columns["image_id"] = [digits[:16] for digits in metadata["sha256"].to_pylist()]
    columns |= {"class_name": ["a"] * len(metadata), "split": ["train"] * len(metadata)}
    return pa.table(columns, schema=IMAGES)
