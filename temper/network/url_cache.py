"""The cache of photos downloaded from addresses, one file for each, with its own checksum.

A file consists of a mark, the SHA-256 of the photo, and the photo. Files of earlier versions are just the photo.
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
_FOUND_OUT = 256  # the first bytes of a photo, which are enough to tell its format


class NoImageError(Exception):
    """The body of an answer is not a photo of a format that Temper reads."""


def place(folder: Path, url: str) -> Path:
    """The path of the photo at `url` in the cache `folder`, whether or not it is there yet."""
    name = hashlib.sha256(url.encode()).hexdigest()
    return folder / name[:2] / name


def is_cached(folder: Path, url: str) -> bool:
    """Whether the cache has a file for `url`; anything else in its place, such as a folder, is put aside."""
    path = place(folder, url)
    if path.parent.exists() and not path.parent.is_dir():
        put_aside(path.parent, "a folder of photos", "a file")
    return is_file(path, "a photo")


def read(folder: Path, url: str) -> bytes | None:
    """The cached photo of `url`; `None` if there is none. A damaged file is put aside."""
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
    """A photo that is being written while it is downloaded."""

    def __init__(self, partial: Path) -> None:
        self.length = 0  # bytes so far
        self._file = partial.open("wb")
        self._file.write(bytes(_HEADER))
        self._digest = hashlib.sha256()
        self._first: bytes | None = b""  # the first bytes, until they are enough to tell the format; then None

    def add(self, block: bytes) -> None:
        """Writes some more bytes.

        Raises:
            NoImageError: the first bytes are not those of an image.
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
        """Writes the checksum, and waits until everything is on the disk.

        Raises:
            NoImageError: the bytes are not an image.
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
    """Yields a photo to write. It gets its name when the block ends without an error; call `Writing.end` before."""
    path = place(folder, url)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    is_file(partial, "a part of a photo")  # puts anything else there aside, which would make every run fail
    try:
        photo = Writing(partial)
        try:
            yield photo
        finally:
            photo.close()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
