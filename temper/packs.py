"""Packed images: decoded images of one size, in arrays that training reads without decoding anything.

A pack is a folder with these files:

- `images-00000.npy`, ...: uint8 (n, height, width, 3), RGB, about 16 MB each (temper/shards.py);
- `labels.npy`: int32 (N,), the index in classes.txt, -1 if unlabelled;
- `image_ids.npy`: (N,) texts of 16 characters;
- `checksums.json`: the checksums of all of them.
"""

from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from temper.cuts import FILE_BYTES
from temper.shards import Shards, ShardWriter

NAME = "images"  # the name of the shards


class PackWriter:
    """Writes the images of a pack one after the other; none stays in memory."""

    def __init__(
        self, folder: Path, image_ids: npt.NDArray[np.str_], height: int, width: int, shard_bytes: int = FILE_BYTES
    ) -> None:
        self._image_ids = image_ids
        self._shards = ShardWriter(folder, NAME, image_ids.tolist(), (height, width, 3), "|u1", shard_bytes)

    def append(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Adds the next image, uint8 (height, width, 3)."""
        self._shards.append(pixels)

    def finish(self, labels: npt.NDArray[np.int32]) -> None:
        """Ends the pack: writes the labels, one for each image, the image_ids and the checksums.

        Raises:
            ValueError: fewer images were written than expected, or the number of labels is wrong.
        """
        self._shards.finish({"labels": labels.astype(np.int32), "image_ids": self._image_ids.astype("U16")})

    def __enter__(self) -> "PackWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._shards.__exit__(kind, error, at)


class Pack:
    """The images of one split, memory-mapped; each file is checked against its checksum when it is first read.

    Attributes:
        labels: int32 (N,), -1 if unlabelled.
        image_ids: (N,) strings.
    """

    def __init__(self, folder: str | Path, classes: int | None = None) -> None:
        """Opens a pack.

        Args:
            classes: the number of classes: labels must be below it. `None` if the caller does not know it.

        Raises:
            TemperError: a file is missing or damaged, or a label is not the index of a class.
        """
        self._shards = Shards(folder, NAME)
        self.labels: npt.NDArray[np.int32] = self._shards.labels(classes)
        self.image_ids: npt.NDArray[np.str_] = self._shards.beside("image_ids")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, 3)."""
        height, width, channels = self._shards.shape
        return height, width, channels

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        """Image number `index`, uint8 (height, width, 3), memory-mapped: copy it before changing it.

        Raises:
            TemperError: its file is damaged.
        """
        return self._shards.row(index)

    def images(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Copies of the images with these indices, uint8 (n, height, width, 3)."""
        out = np.empty((len(indices), *self.image_shape), np.uint8)
        for place, index in enumerate(indices):
            out[place] = self.image(int(index))
        return out
