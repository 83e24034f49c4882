"""The table of predictions: what the classifier says of each test image and of each unlabelled one."""

import pyarrow as pa

PATH = "data/predictions.parquet"

PREDICTIONS = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("split", pa.string()),
        ("class_name", pa.string()),  # null: unlabelled
        ("predicted", pa.string()),
        ("probabilities", pa.list_(pa.float32())),  # in the order of the classes
    ]
)
