"""The photos that were downloaded from addresses: a file for each, which knows its own checksum.

A file is a mark, the SHA-256 of the photo and the photo. Those of earlier versions are photos alone.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from temper import headers
from temper.aside import is_file, put_aside

_MARK = b"temper photo 1\n\n"
_HEADER = len(_MARK) + 32
_FOUND_OUT = 256  # bytes of a photo that tell its format


class NoImageError(Exception):
    """A body is no photo of a format that Temper reads."""


def place(folder: Path, url: str) -> Path:
    """Where the photo at `url` is, or will be, in the cache `folder`."""
    name = hashlib.sha256(url.encode()).hexdigest()
    return folder / name[:2] / name


def is_cached(folder: Path, url: str) -> bool:
    """Whether there is a file for `url`; what else lies in its place is put aside."""
    path = place(folder, url)
    if path.parent.exists() and not path.parent.is_dir():
        put_aside(path.parent, "a folder of photos", "a file")
    return is_file(path, "a photo")


def read(folder: Path, url: str) -> bytes | None:
    """The photo at `url`; `None` if there is none. What is damaged is put aside."""
    if not is_cached(folder, url):
        return None
    path = place(folder, url)
    content = path.read_bytes()
    if content.startswith(_MARK):
        photo = content[_HEADER:]
        if hashlib.sha256(photo).digest() == content[len(_MARK) : _HEADER]:
            return photo
        put_aside(path, "a photo with its checksum", "other bytes")
        return None
    if headers.kind(content) is not None:
        return content
    put_aside(path, "a photo", "no image" if content else "an empty file")
    return None


class Writing:
    """A photo that is coming."""

    def __init__(self, partial: Path) -> None:
        self.length = 0  # bytes so far
        self._file = partial.open("wb")
        self._file.write(bytes(_HEADER))
        self._digest = hashlib.sha256()
        self._first: bytes | None = b""  # the first bytes, until they are enough

    def add(self, block: bytes) -> None:
        """Writes some more bytes.

        Raises:
            NoImageError: the first bytes are those of no image.
        """
        self._digest.update(block)
        self.length += self._file.write(block)
        if self._first is not None:
            self._first += block[:_FOUND_OUT]
            if len(self._first) >= _FOUND_OUT:
                self._refuse_other()

    def _refuse_other(self) -> None:
        if self._first is not None and headers.kind(self._first) is None:
            raise NoImageError
        self._first = None

    def end(self) -> None:
        """Writes the checksum, and waits for the disk.

        Raises:
            NoImageError: it was no image.
        """
        self._refuse_other()
        self._file.seek(0)
        self._file.write(_MARK + self._digest.digest())
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


@contextmanager
def writing(folder: Path, url: str) -> Iterator[Writing]:
    """A photo to be written, which gets its name if the block ends without an error, after `Writing.end`."""
    path = place(folder, url)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    is_file(partial, "a part of a photo")  # what else is there would stop the run for ever
    try:
        photo = Writing(partial)
        try:
            yield photo
        finally:
            photo.close()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
