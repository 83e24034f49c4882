"""The files of a folder, a zip or a tar, read one after the other without unpacking anything to the disk."""

import errno
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from stages.fetch.reading.layouts import is_image
from temper.base.atomic import atomic_file
from temper.base.errors import TemperError

_ENDINGS = (".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
_JUNK = {"__MACOSX", "Thumbs.db", "desktop.ini"}
_MOST_BYTES = 2**30  # of one file: no photo is larger, and no cell of a Parquet table holds twice as much
_LINKS_TO_NOTHING = {
    errno.ENOENT: "a link to nothing",
    errno.ENOTDIR: "a link to nothing",
    errno.ELOOP: "a link that leads back to itself",
}
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    OSError,  # of gzip and bz2, without a number
    lzma.LZMAError,
    zlib.error,
    EOFError,
    UnicodeDecodeError,  # a name that claims to be UTF-8
    RuntimeError,  # an encrypted member
    NotImplementedError,  # an unknown compression
)


@dataclass(frozen=True)
class Listing:
    """The names inside, relative to the top, with forward slashes; hidden files and system litter are left out."""

    files: list[str]
    folders: list[str]
    unreadable: dict[str, str] = field(default_factory=dict)  # why what is no file and no folder is not read, by name


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what the archive libraries raise for damaged files into one line."""
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the archive's
        detail = f"{type(error).__name__}: {error}"
        raise TemperError(
            f"{path}: expected a whole zip or tar archive, received a damaged or unreadable one ({detail}); "
            "fetch it again or compare its checksum"
        ) from None


def is_archive(name: str) -> bool:
    """Whether a file is an archive by the ending of its name."""
    return name.lower().endswith(_ENDINGS)


def without_ending(name: str) -> str:
    """The name of the folder that an archive stands for: `a/images` for `a/images.tar.gz`."""
    return name[: -max(len(ending) for ending in _ENDINGS if name.lower().endswith(ending))]


def list_contents(path: str | Path, archives_inside: bool = False) -> Listing:
    """Lists a folder or archive, sorted; a tar in its own order, the only one in which it can be read.

    Links in a folder are followed, wherever they lead. What they do not lead to, and what is no regular file, is
    listed as unreadable: a named pipe would be waited for, and a device may have no end.

    Args:
        archives_inside: whether a dataset is expected, in which archives and tables may be larger than any photo.

    Raises:
        TemperError: it is missing, damaged or of another format, or a name in it leads out of it (`../`, absolute),
            comes twice or is no text, or a file in it is too large to be a photo.
    """
    path = Path(path)
    if path.is_dir():
        inside = sorted(_walk(path), key=lambda entry: entry.name.split("/"))
    elif _is_zip(path):
        with _readable(path), zipfile.ZipFile(path) as archive:
            infos = sorted(archive.infolist(), key=lambda info: info.filename)
            inside = [_Entry(_name(info), info.is_dir(), info.file_size) for info in infos]
    else:
        with _readable(path), _open_tar(path) as tar:
            inside = [_tar_entry(path, member) for member in _members(tar)]
    _refuse_unsafe_names(path, inside)
    _refuse_large_files(path, [entry for entry in inside if is_image(entry.name) or not archives_inside])
    kept = [entry for entry in inside if not _is_junk(entry.name)]
    folders = {entry.name for entry in kept if entry.is_folder}
    files = [entry.name for entry in kept if not entry.is_folder and not entry.problem]
    unreadable = {entry.name: entry.problem for entry in kept if entry.problem}
    for name in [*files, *unreadable]:  # archives need not list their folders
        folders.update(parent.as_posix() for parent in PurePosixPath(name).parents)
    return Listing(files, sorted(folders - {"."}), unreadable)


def _walk(top: Path) -> Iterator["_Entry"]:
    """All that lies below a folder, links followed, but none to a folder that it is itself in."""
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
    """Why a file cannot be read as a photo, by its mode; `None` for a regular one."""
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return f"{kinds.get(stat.S_IFMT(mode), 'a device')}, no file"


def unpack(path: Path, name: str, target: Path) -> None:
    """Copies one file of an archive to `target`, block by block: it may be larger than memory."""
    with _readable(path), ExitStack() as stack:
        if _is_zip(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            info = next(info for info in archive.infolist() if _name(info) == name)
            content: IO[bytes] | None = stack.enter_context(archive.open(info))
        else:
            tar = stack.enter_context(_open_tar(path))
            content = next(
                tar.extractfile(member) for member in _members(tar) if member.name.removeprefix("./") == name
            )
        assert content is not None  # a regular file has content
        with atomic_file(target) as partial, partial.open("wb") as file:
            shutil.copyfileobj(content, file, 2**20)


def read_files(path: str | Path, names: set[str]) -> Iterator[tuple[str, bytes]]:
    """The (name, bytes) of those files of a folder or archive that are in `names`, in the order of its listing."""
    path = Path(path)
    if path.is_dir():
        for name in sorted(names, key=lambda name: PurePosixPath(name).parts):
            yield name, (path / name).read_bytes()
    elif _is_zip(path):
        with _readable(path), zipfile.ZipFile(path) as archive:
            for info in sorted(archive.infolist(), key=lambda info: info.filename):
                if (name := _name(info)) in names:
                    yield name, archive.read(info)
    else:
        with _readable(path), _open_tar(path) as tar:
            for member in _members(tar):
                name = member.name.removeprefix("./")
                if member.isreg() and name in names:
                    content = tar.extractfile(member)
                    assert content is not None  # a regular file has content
                    yield name, content.read()


def _open_tar(path: Path) -> tarfile.TarFile:
    if not path.exists():
        raise TemperError(f"{path}: expected a folder, zip or tar, found nothing there; set its path in params.yaml")
    if problem := _irregular(path.stat().st_mode):
        raise TemperError(f"{path}: expected a folder, zip or tar, received {problem}; set its path in params.yaml")
    try:
        return tarfile.open(path, "r:*")
    except tarfile.ReadError:
        raise TemperError(
            f"{path}: expected a folder, zip or tar, received a file that is neither (or a truncated one)"
        ) from None


def _is_zip(path: Path) -> bool:
    """Whether a file begins as a zip does: `zipfile` would also accept a tar that ends in a zip."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(2) == b"PK" and zipfile.is_zipfile(path)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """All members of a tar. `tarfile` treats damage after the first member as the end; here it is an error."""
    yield from tar
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    while block := tar.fileobj.read(2**20):  # to the very end, where gzip compares its checksum
        if block.strip(b"\0"):
            raise tarfile.ReadError(f"no member at byte {tar.offset}")


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
    return _Entry(member.name.removeprefix("./"), member.isdir(), member.size)


def _refuse_unsafe_names(path: Path, entries: list[_Entry]) -> None:
    seen: set[str] = set()
    for entry in entries:
        pure = PurePosixPath(entry.name.replace("\\", "/"))
        if pure.is_absolute() or ".." in pure.parts:
            raise TemperError(
                f"{path}: expected names inside the archive, received {entry.name!r}, which leads out of it"
            )
        if not _is_text(entry.name) or "\n" in entry.name:
            raise TemperError(f"{path}: expected names of text in one line, received {entry.name!r}; rename it")
        if entry.name in seen and not entry.is_folder:
            raise TemperError(f"{path}: expected every name once, received {entry.name!r} twice; pack it anew")
        seen.add(entry.name)


def _refuse_large_files(path: Path, entries: list[_Entry]) -> None:
    for entry in entries:
        if entry.size > _MOST_BYTES and not entry.is_folder:
            raise TemperError(f"{path}: expected photos, received {entry.name} of {entry.size} bytes; remove it")


def _is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8: other bytes reach Python as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_junk(name: str) -> bool:
    return any(part.startswith(".") or part in _JUNK for part in PurePosixPath(name).parts)
