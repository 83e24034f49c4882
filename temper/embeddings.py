"""Reads data/embeddings, which `embed` writes: the frozen backbone's features of each image of a split."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from temper.shards import Shards

FOLDER = "data/embeddings"

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


class Embeddings:
    """The embeddings of a split, memory-mapped, and the labels; each file is checked against its checksum once.

    Attributes:
        labels: int32 (N,), the index of each image's class.
        views: the number of views of each image; view 0 is the plain image.
        features: the length of one embedding.
    """

    def __init__(self, split: str, classes: int | None = None) -> None:
        """Opens the embeddings.

        Args:
            classes: the number of classes: labels must be below it. `None` if the caller does not know it.

        Raises:
            TemperError: a file is missing or damaged, or a label is not the index of a class.
        """
        self._shards = Shards(Path(FOLDER) / split, "embeddings")  # rows of (views, features)
        self.labels: npt.NDArray[np.int32] = self._shards.labels(classes)
        self.views, self.features = self._shards.shape

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Indices, views: Indices) -> Floats:
        """The embedding of one view of each of n images, (n, features).

        Args:
            rows: int64 (n,), the rows of the images.
            views: int64 (n,), the view of each of these images.
        """
        out = np.empty((len(rows), self.features), np.float32)
        for place, (row, view) in enumerate(zip(rows.tolist(), views.tolist(), strict=True)):
            out[place] = self._shards.row(row)[view]
        return out

    def every_view(self) -> Floats:
        """The embeddings of all views of all images, read into memory, (N, views, features)."""
        out = np.empty((len(self), self.views, self.features), np.float32)
        for row in range(len(self)):
            out[row] = self._shards.row(row)
        return out
