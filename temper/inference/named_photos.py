"""Reads the photos that a user names, as a stream: files, folders, patterns such as `holiday/*.jpg`, and addresses.

A photo that cannot be read is passed on with the reason and does not stop the others.
"""

import glob
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

from temper.endings import is_image
from temper.network.redaction import redacted, secrets_of

DOWNLOADED_TOGETHER = 64  # addresses; their photos stay on the disk until they have been read
SCHEMES = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class NamedPhoto:
    """A photo to be read.

    Attributes:
        name: its name in answers: its path, or its address without passwords and tokens.
        place: the path or address itself.
        problem: why it cannot be read, if that is already known.
    """

    name: str
    place: str
    problem: str | None = None

    @property
    def is_remote(self) -> bool:
        """Whether it is an address."""
        return self.place.startswith(SCHEMES)


@dataclass(frozen=True)
class Encoded:
    """A photo that was read: its encoded bytes, or the reason why there are none."""

    photo: NamedPhoto
    data: bytes = b""
    problem: str | None = None


def expand(names: Iterable[str]) -> Iterator[NamedPhoto]:
    """Yields the photos that some names mean, in the order of the names; those of a folder or pattern sorted by path.

    A file that is named itself is taken whatever its ending. From a folder (and the folders inside it) and from a
    pattern (`**` matches any number of folders), only files with the ending of a photo are taken, and no hidden ones.
    """
    for name in names:
        if name.startswith(SCHEMES):
            yield NamedPhoto(redacted(name, secrets_of(name)), name)
        elif Path(name).is_dir():
            yield from _all(files_in(Path(name)), name, "a folder without photos")
        elif Path(name).exists() or not glob.has_magic(name):
            yield NamedPhoto(name, name)
        else:
            matching = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute patterns)
            yield from _all((one for one in matching if Path(one).is_file()), name, "a pattern that no photo matches")


def files_in(folder: Path) -> Iterator[str]:
    """Yields the photos in a folder and in the folders inside it, by their endings; hidden files are left out.

    They are sorted by name, the files of a folder before those of the folders inside it. Links to folders are not
    followed, because they may lead back.
    """
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (str(Path(place, name)) for name in sorted(files) if not name.startswith(".") and is_image(name))


def _all(paths: Iterable[str], name: str, problem: str) -> Iterator[NamedPhoto]:
    nothing = True
    for path in paths:
        if is_image(path):
            nothing = False
            yield NamedPhoto(path, path)
    if nothing:
        yield NamedPhoto(name, name, problem)


def read(photos: Iterable[NamedPhoto], private: bool = False) -> Iterator[Encoded]:
    """Yields the bytes of each photo, in order. Addresses are downloaded together and politely, as by `urls` sources.

    Args:
        private: whether to download from hosts in the local network or on this machine, too.
    """
    for is_remote, group in groupby(photos, lambda photo: photo.is_remote):
        if not is_remote:
            yield from map(_read_file, group)
            continue
        while some := list(islice(group, DOWNLOADED_TOGETHER)):
            yield from _download(some, private)


def _read_file(photo: NamedPhoto) -> Encoded:
    if photo.problem:
        return Encoded(photo, problem=photo.problem)
    path = Path(photo.place)
    try:
        if path.exists() and not path.is_file():  # reading a pipe, for example, might never end
            return Encoded(photo, problem="no file" if not path.is_dir() else "a folder")
        return Encoded(photo, path.read_bytes())
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a zero byte in the name
        return Encoded(photo, problem=getattr(error, "strerror", None) or str(error) or "too large for the memory")


def _download(photos: Sequence[NamedPhoto], private: bool) -> Iterator[Encoded]:
    # Only addresses need these modules, which take a quarter of a second to import.
    from temper.network import url_cache  # noqa: PLC0415
    from temper.network.url_downloads import Manners, download_missing  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="temper-") as name:
        folder = Path(name)
        urls = list(dict.fromkeys(photo.place for photo in photos))
        failures = download_missing(urls, folder, Manners(per_host=4, attempts=3, private=private))
        for photo in photos:
            problem = failures.get(photo.place)
            data = None if problem else url_cache.read(folder, photo.place)
            yield Encoded(photo, data or b"", problem or (None if data else "a download that did not stay whole"))
