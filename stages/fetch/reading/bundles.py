"""Published files wherever they lie: in a folder, in an archive, or in archives inside of either."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from stages.fetch.reading.archives import is_archive, list_contents, read_files, unpack, without_ending
from stages.fetch.reading.layouts import is_image
from temper.base.errors import TemperError
from temper.base.paths import scratch

_DEEPEST = 3  # archives in archives in archives


@dataclass(frozen=True)
class Bundle:
    """Files of one dataset, by names as if every archive were a folder of its name without the ending."""

    files: list[str]
    folders: list[str]
    places: list[tuple[str, Path, list[str]]]  # prefix of the names, folder or archive, names inside
    unreadable: dict[str, str] = field(default_factory=dict)  # why what is no file and no folder is not read, by name

    def images(self) -> list[str]:
        """All that is named like an image, also what cannot be read."""
        return [name for name in [*self.files, *self.unreadable] if is_image(name)]

    def read(self, names: set[str]) -> Iterator[tuple[str, bytes]]:
        """The (name, bytes) of those files that are in `names`, place by place, each in its own order."""
        for prefix, path, inside in self.places:
            wanted = {name for name in inside if prefix + name in names}
            if wanted:
                yield from ((prefix + name, data) for name, data in read_files(path, wanted))

    def only(self, name: str) -> bytes:
        """The bytes of one file."""
        return next(data for _, data in self.read({name}))

    def find(self, ending: str) -> str | None:
        """The file whose path ends in `ending`, a path of whole parts; the first by name, if there are several."""
        parts = PurePosixPath(ending).parts
        found = (name for name in self.files if PurePosixPath(name).parts[-len(parts) :] == parts)
        return min(found, default=None)


def open_bundle(path: Path) -> Bundle:
    """Opens a folder or archive with what is in it, unpacking only archives that lie in another one.

    Those are kept in `.temper/unpacked/`, outside DVC's outputs, until `forget_unpacked`.

    Raises:
        TemperError: nothing is there, an archive is damaged or unsafe, or two files have one name.
    """
    places: list[tuple[str, Path, list[str]]] = []
    folders: list[str] = []
    unreadable: dict[str, str] = {}
    _open(path, "", places, folders, unreadable, 0)
    files = [prefix + name for prefix, _, inside in places for name in inside]
    if len(set(files)) < len(files):
        twice = next(name for name, count in Counter(files).items() if count > 1)
        raise TemperError(f"{path}: expected every name once, received {twice} in an archive and outside; remove one")
    return Bundle(files, sorted(folders), places, unreadable)


def _open(
    path: Path,
    prefix: str,
    places: list[tuple[str, Path, list[str]]],
    folders: list[str],
    unreadable: dict[str, str],
    depth: int,
) -> None:
    listing = list_contents(path, archives_inside=True)
    for name, problem in listing.unreadable.items():
        if not is_image(name):  # an archive or a table of the dataset: without it, photos would be missing unseen
            raise TemperError(f"{path / name}: expected a file, received {problem}; remove or mend it")
        unreadable[prefix + name] = problem
    archives = [name for name in listing.files if is_archive(name)] if depth < _DEEPEST else []
    places.append((prefix, path, [name for name in listing.files if name not in set(archives)]))
    folders.extend(prefix + folder for folder in listing.folders)
    for name in archives:
        inner = path / name if path.is_dir() else _unpacked(path, name)
        _open(inner, f"{prefix}{without_ending(name)}/", places, folders, unreadable, depth + 1)


def _unpacked(archive: Path, name: str) -> Path:
    """A copy of an archive that lies in another one, made once for as long as the outer one stays the same."""
    state = archive.stat()
    key = hashlib.sha256(f"{archive.resolve()}:{state.st_size}:{state.st_mtime_ns}:{name}".encode()).hexdigest()
    target = _folder() / key[:32] / PurePosixPath(name).name
    if not target.exists():
        unpack(archive, name, target)
    return target


def _folder() -> Path:
    return scratch("unpacked")


def forget_unpacked() -> None:
    """Removes the copies of archives: they are read once, and would double what a dataset takes on the disk."""
    shutil.rmtree(_folder(), ignore_errors=True)
