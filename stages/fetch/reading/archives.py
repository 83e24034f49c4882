"""Reads the files of a folder, a zip or a tar one after the other, without unpacking anything to disk.

Archives are not trusted. The sizes that their headers claim are compared with limits before anything is read, and the
bytes are counted again while they are read. An archive or folder with an unusable file name is refused; the error shows
the name.
"""

import errno
import io
import lzma
import os
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from stages.fetch.reading import tars, zips
from temper.base.atomic import atomic_file
from temper.base.disk import in_words
from temper.base.errors import TemperError
from temper.endings import is_image
from temper.settings.fetch import Limits

_ENDINGS = (".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
_JUNK = {"__MACOSX", "Thumbs.db", "desktop.ini", "Icon\r"}
_LONGEST_NAME = 4096  # bytes of a path, as on Linux
_MOST_FOLDERS = 100  # how deep a file may be nested
_BLOCK = 2**17
_LINKS_TO_NOTHING = {
    errno.ENOENT: "a link to nothing",
    errno.ENOTDIR: "a link to nothing",
    errno.ELOOP: "a link that leads back to itself",
}
DAMAGE = (  # what the libraries raise for damaged archives
    zipfile.BadZipFile,
    tarfile.TarError,
    OSError,  # of gzip and bz2, without a number
    lzma.LZMAError,
    zlib.error,
    EOFError,
    struct.error,
    ValueError,  # a number of thousands of digits, an offset before the start
    OverflowError,
    RuntimeError,  # an encrypted member
    NotImplementedError,  # an unknown compression
)


@dataclass(frozen=True)
class Listing:
    """The files of a folder or archive, by their paths relative to the top, with forward slashes.

    Hidden files and files that operating systems leave behind (`__MACOSX`, `Thumbs.db`) are left out.
    """

    path: Path
    limits: Limits
    files: list[str]
    sizes: "array[int]"  # bytes of each file
    folders: list[str]
    unreadable: dict[str, str] = field(default_factory=dict)  # pipes, devices, broken links: name -> why it is not read

    def read(self, names: set[str]) -> Iterator[tuple[str, bytes]]:
        """The (name, bytes) of those files that are in `names`, in the order of the listing."""
        return read_files(self.path, names, self.limits)

    def bytes_of(self, names: set[str]) -> int:
        """The total size, in bytes, of those files that are in `names`."""
        return sum(size for name, size in zip(self.files, self.sizes, strict=True) if name in names)


def is_of_the_disk(error: Exception) -> bool:
    """Whether an error comes from the disk, not from the archive. EINVAL (an offset before the start) is damage."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns the exceptions of the archive libraries for damaged files into a TemperError of one line."""
    try:
        yield
    except tars.NoTar:
        raise TemperError(
            f"{path}: expected a folder, zip or tar, received a file that is neither (or a truncated one)"
        ) from None
    except UnicodeDecodeError as error:  # a name in a zip that claims to be UTF-8
        raise TemperError(
            f"{path}: expected names in UTF-8, received {error.object!r}; rename that file and pack it anew"
        ) from None
    except DAMAGE as error:
        if is_of_the_disk(error):
            raise
        detail = f"{type(error).__name__}: {error}"
        raise TemperError(
            f"{path}: expected a whole zip or tar archive, received a damaged or unreadable one ({detail[:500]}); "
            "fetch it again or compare its checksum"
        ) from None


def is_archive(name: str) -> bool:
    """Whether a file is an archive, by its extension."""
    return name.lower().endswith(_ENDINGS)


def without_ending(name: str) -> str:
    """The name of an archive without its extension, as the folder it stands for: `a/images` for `a/images.tar.gz`."""
    return name[: -max(len(ending) for ending in _ENDINGS if name.lower().endswith(ending))]


def list_contents(path: str | Path, limits: Limits, archives_inside: bool = False, unpacked_before: int = 0) -> Listing:
    """Lists a folder or archive, sorted by name. A tar keeps its own order, the only one in which it can be read.

    Symbolic links in a folder are followed, wherever they lead. Broken links and everything that is not a regular file
    are listed as unreadable: opening a named pipe would block, and reading a device may never end.

    Args:
        archives_inside: whether the contents may be a dataset with archives and tables, to which the size limit for
            photos does not apply.
        unpacked_before: the size, in bytes, of what the archives around this one contain; it counts towards the limit.

    Raises:
        TemperError: the path does not exist, is damaged or has another format; or a name in it leads outside (`../`,
            absolute), occurs twice or is not text; or its contents exceed the limits.
    """
    path = Path(path)
    seen = _Seen(path, limits, archives_inside, unpacked_before)
    if path.is_dir():
        inside = sorted(_walk(path), key=lambda entry: entry.name.split("/"))
        kept = [entry for entry in inside if seen.keeps(entry)]
    elif _is_zip(path):
        with _readable(path), zipfile.ZipFile(path) as archive:
            infos = sorted(archive.infolist(), key=lambda info: info.filename)
            inside = [_Entry(_name(info), info.filename.endswith("/"), info.file_size) for info in infos]
        kept = [entry for entry in inside if seen.keeps(entry)]
    else:
        _refuse_what_is_no_file(path)
        with _readable(path), tars.open_tar(path) as tar:
            # Lazily, so that a bomb is refused by its header, before it is unpacked to find the next header.
            entries = (_tar_entry(path, member) for member in tars.members(tar))
            kept = [entry for entry in entries if seen.keeps(entry)]
    return _listed(path, limits, kept)


def _listed(path: Path, limits: Limits, kept: list["_Entry"]) -> Listing:
    folders = {entry.name for entry in kept if entry.is_folder}
    files = [entry for entry in kept if not entry.is_folder and not entry.problem]
    unreadable = {entry.name: entry.problem for entry in kept if entry.problem}
    for name in [*(entry.name for entry in files), *unreadable]:  # archives do not always list their folders
        folders.update(parent.as_posix() for parent in PurePosixPath(name).parents)
    return Listing(
        path,
        limits,
        [entry.name for entry in files],
        array("q", (entry.size for entry in files)),
        sorted(folders - {"."}),
        unreadable,
    )


def _walk(top: Path) -> Iterator["_Entry"]:
    """Everything below a folder. Links are followed, except those to a folder that contains the link itself."""
    state = top.stat()
    waiting = [(top, "", frozenset({(state.st_dev, state.st_ino)}))]
    while waiting:
        folder, prefix, above = waiting.pop()
        for name in os.listdir(folder):  # noqa: PTH208 (names, which `iterdir` would make paths of)
            try:
                state = (folder / name).stat()
            except OSError as error:
                problem = _LINKS_TO_NOTHING.get(error.errno or 0)
                if problem is None:
                    raise
                yield _Entry(prefix + name, False, 0, problem)
                continue
            here = (state.st_dev, state.st_ino)
            if not stat.S_ISDIR(state.st_mode):
                yield _Entry(prefix + name, False, state.st_size, _irregular(state.st_mode))
            elif here in above:
                yield _Entry(prefix + name, False, 0, "a link to a folder that it is in")
            else:
                yield _Entry(prefix + name, True, 0)
                if not _is_junk(name):
                    waiting.append((folder / name, f"{prefix}{name}/", above | {here}))


def _irregular(mode: int) -> str | None:
    """Why a file cannot be read as a photo, by its mode; `None` for a regular file."""
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return f"{kinds.get(stat.S_IFMT(mode), 'a device')}, no file"


def unpack(path: Path, name: str, target: Path) -> None:
    """Copies one file of an archive to `target`, block by block, because it may be larger than memory.

    The copy never exceeds the size in the listing: `zipfile` and `tarfile` stop there, and `zipfile` also compares the
    checksum.

    Raises:
        TemperError: the archive is damaged.
    """
    with _readable(path), ExitStack() as stack:
        if _is_zip(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            info = next(info for info in archive.infolist() if _name(info) == name)
            content = stack.enter_context(zips.open_member(archive, info))
        else:
            tar = stack.enter_context(tars.open_tar(path))
            member = next(member for member in tars.members(tar) if member.name.removeprefix("./") == name)
            content = _content(tar, member)
        with atomic_file(target) as partial, partial.open("wb") as file:
            shutil.copyfileobj(content, file, _BLOCK)


def read_files(path: str | Path, names: set[str], limits: Limits) -> Iterator[tuple[str, bytes]]:
    """The (name, bytes) of those files of a folder or archive that are in `names`, in the order of its listing.

    Raises:
        TemperError: the archive is damaged, or a file is really larger than the limit, whatever its header claims.
    """
    path = Path(path)
    if path.is_dir():
        for name in sorted(names, key=lambda name: PurePosixPath(name).parts):
            with (path / name).open("rb") as file:
                yield name, _whole(file, path, name, limits)
    elif _is_zip(path):
        with _readable(path), zipfile.ZipFile(path) as archive:
            for info in sorted(archive.infolist(), key=lambda info: info.filename):
                if (name := _name(info)) in names:
                    with zips.open_member(archive, info) as content:
                        yield name, _whole(content, path, name, limits)
    else:
        _refuse_what_is_no_file(path)
        with _readable(path), tars.open_tar(path) as tar:
            for member in tars.members(tar):
                name = member.name.removeprefix("./")
                if member.isreg() and name in names:
                    yield name, _whole(_content(tar, member), path, name, limits)


def _whole(file: IO[bytes], path: Path, name: str, limits: Limits) -> bytes:
    """The contents of a file. The bytes are counted while they are read, because headers may lie."""
    data = io.BytesIO()
    while block := file.read(_BLOCK):
        data.write(block)
        if data.tell() > limits.file_bytes:
            raise _too_large(path, name, f"more than {in_words(limits.file_bytes)}")
    return data.getvalue()


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None  # a regular file has content
    return content


def _too_large(path: Path, name: str, received: str) -> TemperError:
    return TemperError(
        f"{path}: expected photos, received {name} of {received}; remove it, or raise max_file_mb of its source"
    )


def _refuse_what_is_no_file(path: Path) -> None:
    if not path.exists():
        raise TemperError(f"{path}: expected a folder, zip or tar, found nothing there; set its path in params.yaml")
    if problem := _irregular(path.stat().st_mode):
        raise TemperError(f"{path}: expected a folder, zip or tar, received {problem}; set its path in params.yaml")


def _is_zip(path: Path) -> bool:
    """Whether a file starts and ends like a zip: `zipfile` alone would also accept a tar that ends with a zip."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(2) == b"PK" and zipfile.is_zipfile(path)


@dataclass(frozen=True)
class _Entry:
    name: str
    is_folder: bool
    size: int
    problem: str | None = None  # why it is not read


def _name(info: zipfile.ZipInfo) -> str:
    return info.filename.rstrip("/").removeprefix("./")


def _tar_entry(path: Path, member: tarfile.TarInfo) -> _Entry:
    if not (member.isreg() or member.isdir()):
        raise TemperError(f"{path}: expected files and folders, received a link or device named {member.name}")
    if member.issparse():  # holes take no space in the archive: 100 bytes of tar may unpack to an exabyte
        raise TemperError(f"{path}: expected files without holes, received {member.name!r}; pack it without --sparse")
    return _Entry(member.name.removeprefix("./"), member.isdir(), member.size)


class _Seen:
    """The entries of a folder or archive seen so far, so that an unusable entry is refused as soon as it is met."""

    def __init__(self, path: Path, limits: Limits, archives_inside: bool, unpacked: int = 0) -> None:
        self._path, self._limits, self._archives_inside = path, limits, archives_inside
        self._names: set[str] = set()
        self._left = limits.unpacked_bytes - unpacked
        self._is_archive = not path.is_dir()

    def keeps(self, entry: _Entry) -> bool:
        """Whether to list an entry: all but hidden files and those that operating systems leave behind.

        Raises:
            TemperError: its name cannot be used, or it exceeds the limits.
        """
        pure = PurePosixPath(entry.name.replace("\\", "/"))
        if pure.is_absolute() or ".." in pure.parts:
            raise TemperError(
                f"{self._path}: expected names inside the archive, received {_shown(entry.name)}, which leads out of it"
            )
        if _is_junk(entry.name):
            return False
        self._refuse_unusable_name(entry, pure)
        if not entry.is_folder:
            self._refuse_too_large(entry)
        return True

    def _refuse_unusable_name(self, entry: _Entry, pure: PurePosixPath) -> None:
        name, shown = entry.name, _shown(entry.name)
        if not _is_text(name):
            remedy = "rename it (docs/sources.md says how)" if not self._is_archive else "rename it and pack it anew"
            raise TemperError(f"{self._path}: expected names in UTF-8 without line breaks, received {shown}; {remedy}")
        if len(name.encode()) > _LONGEST_NAME or len(pure.parts) > _MOST_FOLDERS + 1:
            raise TemperError(
                f"{self._path}: expected names of at most {_LONGEST_NAME} bytes in at most {_MOST_FOLDERS} folders, "
                f"received {shown}; rename it"
            )
        if not pure.name and not entry.is_folder:
            raise TemperError(f"{self._path}: expected files with names, received {shown}; pack it anew")
        if name in self._names and not entry.is_folder:
            raise TemperError(f"{self._path}: expected every name once, received {shown} twice; pack it anew")
        self._names.add(name)

    def _refuse_too_large(self, entry: _Entry) -> None:
        if entry.size > self._limits.file_bytes and (is_image(entry.name) or not self._archives_inside):
            raise _too_large(self._path, entry.name, f"{entry.size} bytes")
        if not self._is_archive:
            return
        self._left -= entry.size
        if self._left < 0:
            most = in_words(self._limits.unpacked_bytes)
            raise TemperError(
                f"{self._path}: expected files of at most {most} in an archive, received more; raise max_unpacked_gb "
                "of its source if that is right"
            )


def _shown(name: str) -> str:
    """A name in quotes for a message, with unprintable characters escaped as in Python; a very long name is cut."""
    shown = repr(os.fsencode(name))[1:] if not _is_utf8(name) else repr(name)
    return shown if len(shown) <= 300 else f"{shown[:200]}...{shown[-50:]}"


def _is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8 and printed in one line."""
    return _is_utf8(name) and not any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in name)


def _is_utf8(name: str) -> bool:
    """Whether a name can be encoded as UTF-8; other bytes in file names reach Python as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_junk(name: str) -> bool:
    return any(part.startswith(".") or part in _JUNK for part in PurePosixPath(name).parts)
