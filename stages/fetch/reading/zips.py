"""The files of a zip, read in small pieces, so that what unpacks to gigabytes never does so at once."""

import io
import zipfile
from typing import IO, Any, cast

_PIECE = 2**17
# `zipfile` hands bz2 and LZMA whole pieces, however much that makes: of zeros, 37 bytes of bz2 become 45 MB.
_PIECES_WITHOUT_LIMIT = 64


def open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """Opens a file of a zip for reading; it may be asked for any number of bytes."""
    file = archive.open(info)
    piece = _PIECE
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        piece = cast(Any, file).MIN_READ_SIZE = _PIECES_WITHOUT_LIMIT
    return io.BufferedReader(_InPieces(file, piece), _PIECE)


class _InPieces(io.RawIOBase):
    """A file that is read a piece at a time."""

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
