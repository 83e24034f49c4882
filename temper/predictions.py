"""The table of predictions: the classifier's probabilities for each test image and each unlabelled image."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from temper import tables

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


@dataclass(frozen=True)
class Predictions:
    """The predictions of one split, in the order of its pack.

    Attributes:
        class_names: the actual class of each image; `None` if it is unlabelled.
        predicted: the predicted class of each image.
        probabilities: float32 (N, classes), in the order of the classes; (0, 0) if there are no images.
    """

    image_ids: Sequence[str]
    paths: Sequence[str]
    class_names: Sequence[str | None]
    predicted: Sequence[str]
    probabilities: npt.NDArray[np.float32]

    @property
    def highest(self) -> npt.NDArray[np.float32]:
        """The probability of the predicted class of each image, (N,)."""
        sure: npt.NDArray[np.float32] = self.probabilities.max(axis=1, initial=0)
        return sure

    def surest(self, rows: Iterable[int]) -> list[int]:
        """Sorts rows by the probability of their predicted class, highest first; of equal ones, the first row first."""
        sure = self.highest
        return sorted(rows, key=lambda row: (-sure[row], row))

    def wrong_rows(self) -> list[int]:
        """The rows of the wrong predictions, the most confident first."""
        pairs = zip(self.class_names, self.predicted, strict=True)
        return self.surest(row for row, (actual, predicted) in enumerate(pairs) if actual != predicted)


def read(split: str, path: str | Path = PATH) -> Predictions:
    """The predictions of a split: "test" or "unlabelled".

    Raises:
        TemperError: as in `tables.read`.
    """
    table = tables.read(path, PREDICTIONS)
    table = table.filter(pc.equal(table["split"], split))
    values = pc.list_flatten(table["probabilities"]).to_numpy()
    image_ids, paths, class_names, predicted = (
        table[name].to_pylist() for name in ("image_id", "path", "class_name", "predicted")
    )
    shape = len(table), values.size // max(len(table), 1)
    return Predictions(image_ids, paths, class_names, predicted, values.reshape(shape))
