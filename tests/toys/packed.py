"""Inputs for `gallery`: a raw table, images, packs and crops, as the stages before it would write them."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from stages import pack
from stages.fetch.__main__ import describe
from stages.fetch.source import Photo
from temper import boxes, classes, images, raw, tables
from temper.detections import Boxes
from temper.settings.pack import MainBox, Pack, Settings
from tests.toys.photos import toy_photo

SOURCE = "photos"


def write_packed(names: list[str], per_class: int = 6, side: int = 24, detector: str = "none") -> pa.Table:
    """Runs `pack` in the working folder on toy photos of these classes; returns the table of images.

    With a detector, two photos of three have an object: a large one, or one too small to be used.
    """
    below = Path(raw.FOLDER) / SOURCE
    below.mkdir(parents=True)
    with raw.RawWriter(below) as writer:
        for label, name in enumerate(names):
            for number in range(per_class):
                data = toy_photo(label, number, side)
                writer.append(describe(Photo(f"{name}/{number}.png", name, None, data)))
    metadata = raw.read_metadata([SOURCE])
    columns = {name: metadata[name] for name in ("source", "part", "row", "path")}
    columns["image_id"] = [digits[:16] for digits in metadata["sha256"].to_pylist()]
    splits = [images.SPLITS[(0, 0, 0, 0, 1, 2)[row % 6]] for row in range(len(metadata))]
    table = pa.table(columns | {"class_name": metadata["label"], "split": splits}, schema=images.IMAGES)
    tables.write(images.PATH, images.IMAGES, {name: table[name] for name in table.column_names})
    classes.write(names)
    boxes.write(boxes.PATH, detector, None, iter(_found(table, side) if detector != "none" else []))
    pack.main(Settings(image_size=(side, side), pack=Pack(box=MainBox(min_box=side // 3))))
    return table


def _found(table: pa.Table, side: int) -> list[tuple[str, Boxes]]:
    found = []
    for row, image_id in enumerate(table["image_id"].to_pylist()):
        if row % 3:
            length = side * (3 if row % 3 == 1 else 1) // 4
            corners = np.array([[2, 2, 2 + length, 2 + length]], np.float32)
            found.append((image_id, Boxes(corners, np.array([0.9], np.float32), ["ant"])))
    return found
