"""The embeddings of a split, which `embed` wrote: what the frozen backbone says of each image."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from temper.shards import Shards

FOLDER = "data/embeddings"

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


class Embeddings:
    """The embeddings of a split, memory-mapped, and the labels; each file is compared with its checksum once.

    Attributes:
        labels: int32 (N,), the index of a class each.
        views: how many there are of each image; view 0 is the plain image.
        features: how many numbers a view has.
    """

    def __init__(self, split: str, classes: int | None = None) -> None:
        """Opens them.

        Args:
            classes: how many there are: labels must be below. `None` if the reader has no list of them.

        Raises:
            TemperError: a file is missing or not as it was written, or a label is no index of a class.
        """
        self._shards = Shards(Path(FOLDER) / split, "embeddings")  # rows of (views, features)
        self.labels: npt.NDArray[np.int32] = self._shards.labels(classes)
        self.views, self.features = self._shards.shape

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Indices, views: Indices) -> Floats:
        """One view of each of some images, (n, features)."""
        out = np.empty((len(rows), self.features), np.float32)
        for place, (row, view) in enumerate(zip(rows.tolist(), views.tolist(), strict=True)):
            out[place] = self._shards.row(row)[view]
        return out

    def every_view(self) -> Floats:
        """All views of all images in memory, (N, views, features)."""
        out = np.empty((len(self), self.views, self.features), np.float32)
        for row in range(len(self)):
            out[row] = self._shards.row(row)
        return out
