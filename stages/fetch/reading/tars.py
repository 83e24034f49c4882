"""The members of a tar, plain or compressed, read so that no header of it is trusted.

`tarfile` takes damage after the first member for the end of the archive, reads a header of any length into memory,
searches its digits in quadratic time (CVE-2024-6232), and follows a negative length back to where it was
(CVE-2025-8194). Here each of them is an error.
"""

import bz2
import gzip
import io
import lzma
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

_MOST_HEADER = 2**20  # bytes of all headers of one member; usual ones have a thousand
_MOST_MEMORY = 2**28  # bytes to unpack xz; `xz -9` takes a quarter of it
_DIGITS = re.compile(rb"\d{300}")  # no number in a header is as long
_BLOCK = 2**17


class NoTar(tarfile.ReadError):
    """A file does not even begin as a tar."""


@contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Opens a tar as it is compressed by its first bytes: gzip, bzip2, xz or not at all.

    Raises:
        tarfile.TarError, OSError, lzma.LZMAError, zlib.error, EOFError, ValueError: it is no tar, or damaged.
    """
    with _decompressed(path) as file:
        try:
            tar = tarfile.TarFile(fileobj=cast(IO[bytes], _Headers(file)))
        except tarfile.ReadError as error:
            raise NoTar(str(error)) from None
        with tar:
            yield tar


def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """All members of a tar that `open_tar` opened, and nothing else up to its very end.

    Raises:
        tarfile.TarError, ...: as `open_tar`.
    """
    headers = cast(_Headers, tar.fileobj)
    last = "its start"
    while True:
        headers.begin()
        try:
            member = tar.next()
        except tarfile.TarError as error:
            raise tarfile.ReadError(f"after {last}: {error}") from None
        headers.end()
        if member is None:
            break
        if member.size < 0 or tar.offset < member.offset_data:
            raise tarfile.ReadError(f"{member.name!r} has a negative length")
        cast(Any, tar).members.clear()  # it keeps each, a thousand bytes
        last = repr(member.name)
        yield member
    headers.seek(tar.offset)
    while block := headers.read(_BLOCK):  # to the very end, where gzip compares its checksum
        if block.strip(b"\0"):
            raise tarfile.ReadError(f"no member at byte {tar.offset}, after {last}")


class _Headers:
    """What `tarfile` reads from: a file that refuses endless headers."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left: int | None = _MOST_HEADER  # None: no header is being read

    def begin(self) -> None:
        """From here on a header is read."""
        self._left = _MOST_HEADER

    def end(self) -> None:
        """From here on the content of a file is read."""
        self._left = None

    def read(self, length: int) -> bytes:
        if self._left is None:
            return self._file.read(length)
        self._left -= max(0, length)
        if length < 0 or self._left < 0:
            raise tarfile.ReadError(f"a header of more than {_MOST_HEADER} bytes")
        data = self._file.read(length)
        if _DIGITS.search(data):
            raise tarfile.ReadError("a header of endless digits")
        return data

    def seek(self, place: int) -> int:
        return self._file.seek(place)

    def tell(self) -> int:
        return self._file.tell()


def _decompressed(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(path))
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(path)
    if magic.startswith((b"\xfd7zXZ\0", b"]\0\0")):
        return io.BufferedReader(_Xz(path), _BLOCK)
    return path.open("rb")


class _Xz(io.RawIOBase):
    """An xz or lzma file, as `lzma.open` reads it, but with a limit for the memory that its header asks for."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._begin()

    def _begin(self) -> None:
        self._file.seek(0)
        self._stream = lzma.LZMADecompressor(memlimit=_MOST_MEMORY)
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            place += self._place
        if place < self._place:
            self._begin()
        while self._place < place and self.readinto(memoryview(bytearray(min(_BLOCK, place - self._place)))):
            pass
        return self._place

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        data = b""
        while not data:
            chunk = b""
            if self._stream.eof:
                # Another stream may follow, and zeros up to a multiple of four bytes.
                chunk = (self._stream.unused_data or self._file.read(_BLOCK)).lstrip(b"\0")
                if not chunk and not (chunk := self._file.read(_BLOCK).lstrip(b"\0")):
                    return 0
                self._stream = lzma.LZMADecompressor(memlimit=_MOST_MEMORY)
            elif self._stream.needs_input and not (chunk := self._file.read(_BLOCK)):
                raise EOFError("the xz file ends too early")
            data = self._stream.decompress(chunk, len(buffer))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
