"""The schema of data/occlusion.parquet: occlusion maps of some test images.

It is not in occlusion.py, so that the server, which uses that module, does not need pyarrow.
"""

import pyarrow as pa

PATH = "data/occlusion.parquet"

OCCLUSION = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("class_name", pa.string()),
        ("predicted", pa.string()),
        ("map", pa.list_(pa.float32())),  # GRID * GRID values, row by row
    ]
)
