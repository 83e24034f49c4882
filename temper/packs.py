"""Packed images: arrays of one size that training reads without decoding anything.

A pack is a folder: `images-00000.npy`, ... (uint8, (n, height, width, 3), RGB, at most 1 GB a shard), `labels.npy`
(int32, (N,), an index into classes.txt, -1 if unlabelled) and `image_ids.npy` (16 characters, (N,)).
"""

from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from temper.base.errors import TemperError

SHARD_BYTES = 2**30


class PackWriter:
    """Writes the images of a pack one after the other, by plain file writes: no image stays in memory."""

    def __init__(self, folder: Path, rows: int, height: int, width: int, shard_bytes: int = SHARD_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._left, self._shape = folder, rows, (height, width, 3)
        self._per_shard = max(1, shard_bytes // (height * width * 3))
        self._shards = self._room = 0
        self._open_shard()

    def _open_shard(self) -> None:
        self._room = min(self._left, self._per_shard)
        self._file = (self._folder / f"images-{self._shards:05}.npy").open("wb")
        header = {"descr": "|u1", "fortran_order": False, "shape": (self._room, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._shards += 1

    def append(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Adds the next image, uint8 (height, width, 3)."""
        if pixels.shape != self._shape:
            raise ValueError(f"expected an image of shape {self._shape}, received {pixels.shape}")
        if not self._room:
            self._file.close()
            self._open_shard()
        self._file.write(np.ascontiguousarray(pixels).data)
        self._room, self._left = self._room - 1, self._left - 1

    def finish(self, labels: npt.NDArray[np.int32], image_ids: npt.NDArray[np.str_]) -> None:
        """Writes what belongs to the images, a row each."""
        if self._left:
            raise ValueError(f"{self._left} images are missing")
        np.save(self._folder / "labels.npy", labels.astype(np.int32))
        np.save(self._folder / "image_ids.npy", image_ids.astype("U16"))

    def __enter__(self) -> "PackWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


class Pack:
    """The images of one split, memory-mapped.

    Attributes:
        labels: int32 (N,), -1 if unlabelled.
        image_ids: (N,) strings.
    """

    def __init__(self, folder: str | Path) -> None:
        shards = sorted(Path(folder).glob("images-*.npy"))
        if not shards:
            raise TemperError(f"{folder}: expected images-00000.npy, ..., found none; run dvc repro pack")
        self._shards = [_map(path) for path in shards]
        self._ends = np.cumsum([len(shard) for shard in self._shards])
        self.labels: npt.NDArray[np.int32] = np.load(Path(folder) / "labels.npy")
        self.image_ids: npt.NDArray[np.str_] = np.load(Path(folder) / "image_ids.npy")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, 3)."""
        height, width, channels = self._shards[0].shape[1:]
        return height, width, channels

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        """Image number `index`, uint8 (height, width, 3), mapped: copy it before changing it."""
        shard = int(np.searchsorted(self._ends, index, side="right"))
        start = self._ends[shard - 1] if shard else 0
        return self._shards[shard][index - start]  # type: ignore[no-any-return]

    def images(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """A copy of the images of `indices`, uint8 (n, height, width, 3)."""
        out = np.empty((len(indices), *self.image_shape), np.uint8)
        for place, index in enumerate(indices):
            out[place] = self.image(int(index))
        return out


def _map(path: Path) -> npt.NDArray[np.uint8]:
    """A memory map, or for no rows at all an empty array, which cannot be mapped."""
    shape = np.load(path, mmap_mode="r").shape if path.stat().st_size > 128 else (0,)
    return np.load(path, mmap_mode="r" if shape[0] else None)  # type: ignore[no-any-return]
