"""Reads the members of a tar, plain or compressed, without trusting its headers.

`tarfile` treats damage after the first member as the end of the archive, reads headers of any length into memory,
parses digits in quadratic time (CVE-2024-6232), and on a negative length seeks back and loops forever (CVE-2025-8194).
Here each of these is an error.
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

_MOST_HEADER = 2**20  # bytes of all headers of one member; a usual member has about a thousand
_MOST_MEMORY = 2**28  # bytes of memory for unpacking xz; `xz -9` needs a quarter of it
_DIGITS = re.compile(rb"\d{300}")  # longer than any number in a genuine header
_BLOCK = 2**17


class NoTar(tarfile.ReadError):
    """The file does not even start like a tar."""


@contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Opens a tar; its first bytes tell the compression: gzip, bzip2, xz or none.

    Raises:
        tarfile.TarError, OSError, lzma.LZMAError, zlib.error, EOFError, ValueError: it is not a tar, or damaged.
    """
    with _decompressed(path) as file:
        try:
            tar = tarfile.TarFile(fileobj=cast(IO[bytes], _Headers(file)))
        except tarfile.ReadError as error:
            raise NoTar(str(error)) from None
        with tar:
            yield tar


def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yields all members of a tar that `open_tar` opened, then checks that only zeros follow the last one.

    Raises:
        tarfile.TarError, ...: as `open_tar`; also for a member of negative length, or data after the last member.
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
        cast(Any, tar).members.clear()  # `tarfile` would keep every member, about a thousand bytes each
        last = repr(member.name)
        yield member
    headers.seek(tar.offset)
    while block := headers.read(_BLOCK):  # up to the very end, because gzip compares its checksum only there
        if block.strip(b"\0"):
            raise tarfile.ReadError(f"no member at byte {tar.offset}, after {last}")


class _Headers:
    """The file object that `tarfile` reads from; it refuses headers of excessive length."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left: int | None = _MOST_HEADER  # None: no header is being read

    def begin(self) -> None:
        """Call before a header is read."""
        self._left = _MOST_HEADER

    def end(self) -> None:
        """Call after a header was read, before the content of the file."""
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
    """An xz or lzma file, as `lzma.open` reads it, but with a limit on the memory that its header can request."""

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
                # The file may go on with padding of zeros (up to a multiple of four bytes) and another stream.
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
