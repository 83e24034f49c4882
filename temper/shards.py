"""Long arrays in files of about 16 MB (shards), written as a stream and read by memory maps.

An array of N rows, one for each image, is a folder with NAME-00000.npy, ..., each of the shape (n, ...). The images
decide where a file ends (temper/cuts.py), so files whose rows stay the same keep their bytes, and DVC's cache holds
them only once. Beside them are arrays with one value per row, such as labels.npy, and checksums.json with the CRC-32 of
every file.
"""

import io
import tokenize
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from temper.base import checksums
from temper.base.checksums import MEND
from temper.base.errors import TemperError
from temper.cuts import FILE_BYTES, ends_file

CHECKSUMS = "checksums.json"

# The errors that NumPy raises for a header that it cannot read.
_NO_ARRAY = (ValueError, TypeError, EOFError, OverflowError, SyntaxError, tokenize.TokenError)

Array = npt.NDArray[Any]


def shard_ends(image_ids: Sequence[str], row_bytes: int, shard_bytes: int = FILE_BYTES) -> list[int]:
    """For each shard, the number of the row after its last one. Without any rows there is one shard with none."""
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
    """Writes an array row by row with plain file writes, so nothing stays in memory and a full disk raises an error."""

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
            name: the first part of the files' names: NAME-00000.npy.
            image_ids: the ids of all rows that will be written; needed because a file's header states its rows.
            shape: the shape of one row.
            dtype: in NumPy's notation with the byte order, such as "<f4".
            shard_bytes: the average size of a file.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name, self._shape, self._dtype = folder, name, shape, dtype
        row_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.ends = shard_ends(image_ids, row_bytes, shard_bytes)
        self._checksums: dict[str, str] = {}  # of each finished file
        self._shard = self._written = 0
        self._open_shard()

    def _open_shard(self) -> None:
        rows = self.ends[self._shard] - self._written
        self._file = (self._folder / f"{self._name}-{self._shard:05}.npy").open("wb")
        self._checksum = checksums.of_bytes(b"")
        header = io.BytesIO()
        described = {"descr": self._dtype, "fortran_order": False, "shape": (rows, *self._shape)}
        np.lib.format.write_array_header_1_0(header, described)
        self._write(header.getbuffer())

    def _write(self, data: memoryview) -> None:
        self._file.write(data)
        self._checksum = checksums.of_bytes(data, self._checksum)

    def _close_shard(self) -> None:
        self._file.close()
        self._checksums[f"{self._name}-{self._shard:05}.npy"] = self._checksum

    def append(self, row: Array) -> None:
        """Adds the next row."""
        if row.shape != self._shape:
            raise ValueError(f"expected {self._name} of shape {self._shape}, received {row.shape}")
        if self._written == self.ends[-1]:
            raise ValueError(f"expected {self._written} {self._name}, received another one")
        if self._written == self.ends[self._shard]:
            self._close_shard()
            self._shard += 1
            self._open_shard()
        self._write(np.ascontiguousarray(row, self._dtype).data)
        self._written += 1

    def finish(self, beside: Mapping[str, Array]) -> None:
        """Ends the array: writes the arrays beside it, and the checksums.

        Args:
            beside: arrays with one value per row, by name: "labels" is written as labels.npy.

        Raises:
            ValueError: rows are missing, or an array beside has another number of values.
        """
        if self._written < self.ends[-1]:
            raise ValueError(f"{self.ends[-1] - self._written} {self._name} are missing")
        self._close_shard()
        for name, values in beside.items():
            if len(values) != self._written:
                raise ValueError(f"expected {self._written} {name}, received {len(values)}")
            content = io.BytesIO()
            np.save(content, values)
            (self._folder / f"{name}.npy").write_bytes(content.getbuffer())
            self._checksums[f"{name}.npy"] = checksums.of_bytes(content.getbuffer())
        (self._folder / CHECKSUMS).write_text(checksums.as_json(self._checksums), encoding="utf-8")

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


class Shards:
    """An array that ShardWriter wrote, memory-mapped.

    Each file is checked against its checksum once, before its first row is returned. So a caller that needs a few rows
    reads only their files, and a caller that needs all rows reads each file one extra time.
    """

    def __init__(self, folder: str | Path, name: str) -> None:
        """Opens the files.

        Raises:
            TemperError: there are no files, or one is missing or damaged.
        """
        self._folder = Path(folder)
        self._checksums = _read_checksums(self._folder, name)
        self._paths = [self._folder / file for file in sorted(self._checksums) if file.startswith(f"{name}-")]
        if not self._paths:
            raise TemperError(f"{self._folder / CHECKSUMS}: expected {name}-00000.npy in it, found none; run dvc repro")
        self._shards = [_map(path) for path in self._paths]
        self._checked = [False] * len(self._shards)
        self._ends = np.cumsum([len(shard) for shard in self._shards])
        self.shape: tuple[int, ...] = self._shards[0].shape[1:]  # the shape of one row
        if len({(shard.shape[1:], shard.dtype) for shard in self._shards}) > 1 or not len(self):
            for number in range(len(self._shards)):  # check now: without any row, no later call would
                self._check(number)
            if len(self):
                raise TemperError(f"{folder}: expected {name} of one shape, received several; run dvc repro")

    def __len__(self) -> int:
        return int(self._ends[-1])

    def row(self, index: int) -> Array:
        """Row number `index`, memory-mapped: copy it before changing it.

        Raises:
            TemperError: its file is damaged.
        """
        shard = int(np.searchsorted(self._ends, index, side="right"))
        if not self._checked[shard]:
            self._check(shard)
        start = self._ends[shard - 1] if shard else 0
        return self._shards[shard][index - start]  # type: ignore[no-any-return]

    def _check(self, number: int) -> None:
        # Several threads may check the same file at once, which does no harm.
        path = self._paths[number]
        checksums.require_file(path, self._checksums[path.name])
        self._checked[number] = True

    def beside(self, name: str) -> Array:
        """The array NAME.npy that was written beside the rows, with one value per row.

        Raises:
            TemperError: it is missing, damaged, or has another length.
        """
        path = self._folder / f"{name}.npy"
        if path.name not in self._checksums:
            raise TemperError(f"{self._folder / CHECKSUMS}: expected {path.name} in it, found none; run dvc repro")
        try:
            checksums.require_file(path, self._checksums[path.name])
            values: Array = np.load(path)
        except (FileNotFoundError, *_NO_ARRAY) as error:
            raise _unreadable(path, error) from None
        if len(values) != len(self):
            raise TemperError(f"{path}: expected {len(self)} values, one a row, received {len(values)}; {MEND}")
        return values

    def labels(self, classes: int | None = None) -> npt.NDArray[np.int32]:
        """The labels beside the rows: int32 (N,), the index of each row's class, -1 if unlabelled.

        Args:
            classes: the number of classes; `None` if the caller does not know it.

        Raises:
            TemperError: as in `beside`, or a label is not the index of a class.
        """
        labels = self.beside("labels")
        wrong = np.flatnonzero((labels < -1) | (labels >= (np.inf if classes is None else classes)))
        if len(wrong):
            raise TemperError(
                f"{self._folder / 'labels.npy'}: expected -1, or the number of one of {classes or 'the'} classes, "
                f"received {labels[wrong[0]]} for row {wrong[0]}; run dvc repro: it was written for other classes"
            )
        return labels


def _read_checksums(folder: Path, name: str) -> dict[str, str]:
    try:
        content = (folder / CHECKSUMS).read_bytes()
    except FileNotFoundError:
        raise TemperError(
            f"{folder}: expected {name}-00000.npy, ..., and {CHECKSUMS}, found no {CHECKSUMS}; run dvc repro"
        ) from None
    return checksums.from_json(content, folder / CHECKSUMS)


def _map(path: Path) -> Array:
    """The rows of a file, mapped into memory."""
    try:
        content = np.memmap(path, np.uint8, "r")
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
        if not shape:
            raise ValueError("a single number")
        # A plain array on the map, because its rows take less time to read. `reshape` compares the length with the
        # header: a file that was cut off would otherwise end the process when its rows are read.
        return np.asarray(content[start:]).view(dtype).reshape(shape)
    except (FileNotFoundError, *_NO_ARRAY) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> TemperError:
    if isinstance(error, FileNotFoundError):
        return TemperError(f"{path}: expected a file, found none; run dvc repro, or dvc pull")
    problem = str(error).split("\n", 1)[0][:200]
    return TemperError(f"{path}: damaged: expected an array of NumPy, received {problem}; {MEND}")
