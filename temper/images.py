"""The table of images: every usable image with its class and split, in the order of the raw tables.

`normalize` writes it.
"""

from collections.abc import Sequence

import pyarrow as pa

from temper import tables

PATH = "data/images.parquet"
SPLITS = ("train", "validation", "test", "unlabelled")

IMAGES = pa.schema(
    [
        ("image_id", pa.string()),  # the first 16 hex digits of sha256; images with equal bytes share it
        ("source", pa.string()),  # where the bytes are in the raw tables: the named source, ...
        ("part", pa.int32()),  # ... the part of its table, ...
        ("row", pa.int32()),  # ... and the row in that part
        ("path", pa.string()),
        ("class_name", pa.string()),  # null: unlabelled
        ("split", pa.string()),  # one of SPLITS
    ]
)


def read(columns: Sequence[str] | None = None) -> pa.Table:
    """The table, or only some columns of it."""
    return tables.read(PATH, IMAGES, columns)
