"""Opens a dataset whose files are in a folder, in an archive, or in archives inside either."""

import fcntl
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from stages.fetch.reading.archives import Listing, is_archive, list_contents, unpack, without_ending
from temper.base.disk import require_room
from temper.base.errors import TemperError
from temper.base.locks import held
from temper.base.paths import repository
from temper.endings import is_image
from temper.settings.fetch import Limits

_DEEPEST = 3  # how deep archives may be nested in archives


@dataclass(frozen=True)
class Bundle:
    """The files of a dataset, named as if every archive were a folder with its name without the extension."""

    files: list[str]
    folders: list[str]
    places: list[tuple[str, Listing, set[str]]]  # for each folder or archive: prefix of its names, listing, names in it
    unreadable: dict[str, str] = field(default_factory=dict)  # pipes, devices, broken links: name -> why it is not read

    def images(self) -> list[str]:
        """All files with an image's extension, also unreadable ones."""
        return [name for name in [*self.files, *self.unreadable] if is_image(name)]

    def read(self, names: set[str]) -> Iterator[tuple[str, bytes]]:
        """The (name, bytes) of those files that are in `names`: one place after the other, each in its own order."""
        for prefix, listing, inside in self.places:
            wanted = {name for name in inside if prefix + name in names}
            if wanted:
                yield from ((prefix + name, data) for name, data in listing.read(wanted))

    def bytes_of(self, names: set[str]) -> int:
        """The total size, in bytes, of those files that are in `names`."""
        return sum(
            listing.bytes_of({name for name in inside if prefix + name in names})
            for prefix, listing, inside in self.places
        )

    def only(self, name: str) -> bytes:
        """The bytes of one file."""
        return next(data for _, data in self.read({name}))

    def find(self, ending: str) -> str | None:
        """The file whose path ends with the path `ending`, compared part by part; the first by name of several."""
        parts = PurePosixPath(ending).parts
        found = (name for name in self.files if PurePosixPath(name).parts[-len(parts) :] == parts)
        return min(found, default=None)


def open_bundle(path: Path, limits: Limits) -> Bundle:
    """Opens a folder or archive and all archives in it.

    Only archives inside another archive are copied to disk: to `.temper/unpacked/`, outside DVC's outputs, until
    `forget_unpacked` is called.

    Raises:
        TemperError: there is nothing at `path`, an archive is damaged or unsafe, two files have the same name, or the
            contents exceed the limits or the free disk space.
    """
    opening = _Opening(limits)
    opening.add(path, str(path), "", 0)
    files = [prefix + name for prefix, listing, inside in opening.places for name in listing.files if name in inside]
    if len(set(files)) < len(files):
        twice = next(name for name, count in Counter(files).items() if count > 1)
        raise TemperError(f"{path}: expected every name once, received {twice} in an archive and outside; remove one")
    return Bundle(files, sorted(opening.folders), opening.places, opening.unreadable)


class _Opening:
    """Collects the files of a bundle while its folders and archives are opened one by one."""

    def __init__(self, limits: Limits) -> None:
        self.places: list[tuple[str, Listing, set[str]]] = []
        self.folders: list[str] = []
        self.unreadable: dict[str, str] = {}
        self._limits, self._unpacked = limits, 0  # bytes so far

    def add(self, path: Path, shown: str, prefix: str, depth: int) -> None:
        """Adds a folder or archive, and the archives in it.

        Args:
            path: the folder or archive on disk, which may be a temporary copy.
            shown: its path for messages, in which archives appear like folders.
            prefix: the start of the names that its files get in the bundle.
            depth: how many archives it is nested in.
        """
        try:
            listing = list_contents(path, self._limits, archives_inside=True, unpacked_before=self._unpacked)
        except TemperError as error:
            raise TemperError(str(error).replace(str(path), shown)) from None
        for name, problem in listing.unreadable.items():
            if not is_image(name):  # an archive or a table: without it, photos would be missing unnoticed
                raise TemperError(f"{shown}/{name}: expected a file, received {problem}; remove or mend it")
            self.unreadable[prefix + name] = problem
        archives = {name for name in listing.files if is_archive(name)}
        if archives and depth == _DEEPEST:
            raise TemperError(
                f"{shown}/{min(archives)}: expected at most {_DEEPEST} archives inside each other; unpack the outer one"
            )
        self.places.append((prefix, listing, set(listing.files) - archives))
        self.folders.extend(prefix + folder for folder in listing.folders)
        if not path.is_dir():
            self._unpacks(listing, archives, shown)
        for name in (name for name in listing.files if name in archives):
            inner = path / name if path.is_dir() else _unpacked(path, name)
            self.add(inner, f"{shown}/{name}", f"{prefix}{without_ending(name)}/", depth + 1)

    def _unpacks(self, listing: Listing, archives: set[str], shown: str) -> None:
        """Counts the size of an archive's contents, and makes sure that copies of the archives in it fit on disk."""
        self._unpacked += sum(listing.sizes)
        if archives:
            copies = listing.bytes_of(archives)
            require_room(_common(), copies, f"{shown}: copies of the archives in it", "unpack it by hand")


# --- Copies of archives that lie in another one

_LOCK = "lock"
_own: dict[Path, tuple[Path, IO[str]]] = {}  # common folder -> this process's folder of copies in it, and its lock


def _common() -> Path:
    return repository().resolve() / ".temper" / "unpacked"


def _alone() -> AbstractContextManager[None]:
    """A lock: while it is held, no other process creates or removes folders of copies."""
    return held(_common().parent / "locks" / "unpacked.lock", "fetch: waiting for another fetch to remove its copies")


def _unpacked(archive: Path, name: str) -> Path:
    """Copies an archive out of the archive that contains it, and returns the path of the copy."""
    target = Path(tempfile.mkdtemp(dir=_folder())) / "copy"
    unpack(archive, name, target)
    return target


def _folder() -> Path:
    """This process's own folder of copies, so that parallel fetches do not delete each other's copies.

    It stays locked for as long as the process lives, or until `forget_unpacked`.
    """
    common = _common()
    if common not in _own:
        with _alone():
            _remove_abandoned(common)
            common.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=common))
            lock = (folder / _LOCK).open("w", encoding="utf-8")
            fcntl.flock(lock, fcntl.LOCK_EX)
        _own[common] = (folder, lock)
    return _own[common][0]


def forget_unpacked() -> None:
    """Removes this process's copies of archives, which are read only once and would double a dataset's disk space.

    Copies that other processes use are kept. Those of killed processes are removed too: they may be incomplete.
    """
    common = _common()
    with _alone():
        if common in _own:
            _own.pop(common)[1].close()
        _remove_abandoned(common)


def _remove_abandoned(common: Path) -> None:
    """Removes every folder of copies whose lock no process holds."""
    if not common.is_dir():
        common.unlink(missing_ok=True)
        return
    for path in common.iterdir():
        if not _is_in_use(path):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    with suppress(OSError):  # not empty: another process's copies are in it
        common.rmdir()


def _is_in_use(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open("r+", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it has none
        return False
    return False
