"""data/occlusion.parquet: where a classifier looks at some test images. Apart, so that a server needs no pyarrow."""

import pyarrow as pa

PATH = "data/occlusion.parquet"

OCCLUSION = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("class_name", pa.string()),
        ("predicted", pa.string()),
        ("map", pa.list_(pa.float32())),  # of GRID * GRID cells, row by row
    ]
)
