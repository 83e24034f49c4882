"""Reads the files of a zip in small pieces, so that a zip bomb never unpacks to gigabytes of memory at once."""

import io
import zipfile
from typing import IO, Any, cast

_PIECE = 2**17
# With bz2 and LZMA, `zipfile` decompresses each piece of input without limiting the output: 37 bytes of bz2 can become
# 45 MB of zeros. So it gets very small pieces of input.
_PIECES_WITHOUT_LIMIT = 64


def open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """Opens a file of a zip for reading; `read` may be called with any number of bytes."""
    file = archive.open(info)
    piece = _PIECE
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        piece = cast(Any, file).MIN_READ_SIZE = _PIECES_WITHOUT_LIMIT
    return io.BufferedReader(_InPieces(file, piece), _PIECE)


class _InPieces(io.RawIOBase):
    """Reads another file at most `piece` bytes at a time."""

    def __init__(self, file: IO[bytes], piece: int) -> None:
        self._file, self._piece = file, piece

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        data = self._file.read(min(len(buffer), self._piece))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
