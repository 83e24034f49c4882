"""Long arrays in files of some 16 MB, written as a stream and read by memory maps.

An array of N rows, one an image, is a folder with NAME-00000.npy, ..., each of the shape (n, ...). Where a file ends is
decided by the images (temper/cuts.py), so files whose rows stay the same keep their bytes, and DVC's cache holds them
once.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from temper.base.errors import TemperError
from temper.cuts import FILE_BYTES, ends_file

Array = npt.NDArray[Any]


def shard_ends(image_ids: Sequence[str], row_bytes: int, shard_bytes: int = FILE_BYTES) -> list[int]:
    """The number of the row after each shard's last one; one shard, of no rows, where there are none."""
    ends, length = [], 0
    for number, image_id in enumerate(image_ids, 1):
        length += row_bytes
        if ends_file(image_id, row_bytes, length, shard_bytes):
            ends.append(number)
            length = 0
    if length or not ends:
        ends.append(len(image_ids))
    return ends


class ShardWriter:
    """Writes an array row after row by plain file writes: nothing stays in memory, and a full disk is an error."""

    def __init__(
        self,
        folder: Path,
        name: str,
        image_ids: Sequence[str],
        shape: tuple[int, ...],
        dtype: str,
        shard_bytes: int = FILE_BYTES,
    ) -> None:
        """Starts the first file.

        Args:
            name: what the files are called: NAME-00000.npy.
            image_ids: of all rows that will come: a file's header says how many rows it has.
            shape: of a row.
            dtype: in NumPy's notation with the byte order, such as "<f4".
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name, self._shape, self._dtype = folder, name, shape, dtype
        row_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.ends = shard_ends(image_ids, row_bytes, shard_bytes)
        self._shard = self._written = 0
        self._open_shard()

    def _open_shard(self) -> None:
        rows = self.ends[self._shard] - self._written
        self._file = (self._folder / f"{self._name}-{self._shard:05}.npy").open("wb")
        header = {"descr": self._dtype, "fortran_order": False, "shape": (rows, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, row: Array) -> None:
        """Adds the next row."""
        if row.shape != self._shape:
            raise ValueError(f"expected {self._name} of shape {self._shape}, received {row.shape}")
        if self._written == self.ends[-1]:
            raise ValueError(f"expected {self._written} {self._name}, received another one")
        if self._written == self.ends[self._shard]:
            self._file.close()
            self._shard += 1
            self._open_shard()
        self._file.write(np.ascontiguousarray(row, self._dtype).data)
        self._written += 1

    def finish(self) -> None:
        """Says that this was all.

        Raises:
            ValueError: rows are missing.
        """
        if self._written < self.ends[-1]:
            raise ValueError(f"{self.ends[-1] - self._written} {self._name} are missing")

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


class Shards:
    """An array that ShardWriter wrote, memory-mapped."""

    def __init__(self, folder: str | Path, name: str) -> None:
        paths = sorted(Path(folder).glob(f"{name}-*.npy"))
        if not paths:
            raise TemperError(f"{folder}: expected {name}-00000.npy, ..., found none; run dvc repro")
        self._shards = [_map(path) for path in paths]
        self._ends = np.cumsum([len(shard) for shard in self._shards])
        self.shape: tuple[int, ...] = self._shards[0].shape[1:]  # of a row

    def __len__(self) -> int:
        return int(self._ends[-1])

    def row(self, index: int) -> Array:
        """Row number `index`, mapped: copy it before changing it."""
        shard = int(np.searchsorted(self._ends, index, side="right"))
        start = self._ends[shard - 1] if shard else 0
        return self._shards[shard][index - start]  # type: ignore[no-any-return]


def _map(path: Path) -> Array:
    """A memory map, or for no rows at all an empty array, which cannot be mapped."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if not shape[0]:
        return np.empty(shape, dtype)
    return np.asarray(np.load(path, mmap_mode="r"))  # a plain array on the map, whose rows cost less to take
