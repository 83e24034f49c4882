"""The table of images: every image that may be used, its class and its split. Written by `normalize`, in raw order."""

from collections.abc import Sequence

import pyarrow as pa

from temper import tables

PATH = "data/images.parquet"
SPLITS = ("train", "validation", "test", "unlabelled")

IMAGES = pa.schema(
    [
        ("image_id", pa.string()),  # the first 16 hex digits of sha256; images of equal bytes share it
        ("source", pa.string()),  # where the bytes are in the raw tables: the named source, ...
        ("part", pa.int32()),  # ... the part, ...
        ("row", pa.int32()),  # ... and the row in it
        ("path", pa.string()),
        ("class_name", pa.string()),  # null: unlabelled
        ("split", pa.string()),  # one of SPLITS
    ]
)


def read(columns: Sequence[str] | None = None) -> pa.Table:
    """The table, or only some columns of it."""
    return tables.read(PATH, IMAGES, columns)
