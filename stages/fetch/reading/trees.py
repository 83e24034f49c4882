"""Images labelled by the folders they are in; used by all sources that read folders or archives."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from stages.fetch.reading.archives import is_archive
from stages.fetch.reading.layouts import place_by_folders, place_by_patterns, read_as
from stages.fetch.source import Photo, Source
from temper.base.errors import TemperError

LAYOUT = 'patterns such as "{split}/{label}/{name}", of which the first that fits counts; null: by the folders\' names'


class Tree(Protocol):
    """Files in folders: what `archives.Listing` and `bundles.Bundle` have in common."""

    @property
    def files(self) -> Sequence[str]:
        """The names of the readable files, relative to the top."""

    @property
    def folders(self) -> Sequence[str]:
        """All folders, also empty ones."""

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Entries that cannot be read, such as named pipes and broken links, with the reason.

        An entry in the place of a photo becomes a row of the raw table with this problem.
        """

    def read(self, names: set[str]) -> Iterator[tuple[str, bytes]]:
        """Yields the (name, bytes) of these files."""

    def bytes_of(self, names: set[str]) -> int:
        """The total size of these files in bytes."""


def open_tree(name: str, tree: Tree, layout: Sequence[str] | None, facts: Mapping[str, object]) -> Source:
    """The images of a tree as a source; `layout` or else the names of the folders give each image its split and label.

    Args:
        name: the name of the tree in error messages.
        facts: further entries for source.json.

    Raises:
        TemperError: no image fits, or the folders can be interpreted in two ways.
    """
    unreadable = tree.unreadable
    listed = [*tree.files, *unreadable]
    try:
        places = place_by_folders(listed, tree.folders) if layout is None else place_by_patterns(listed, layout)
    except TemperError as error:
        archives = [file for file in tree.files if is_archive(file)]
        inside = f"; in it lies the archive {archives[0]}: unpack it, or set `path` to it" if archives else ""
        raise TemperError(f"{name}: {error}{inside}") from None

    readable = set(places) - set(unreadable)

    def photos() -> Iterator[Photo]:
        for file, data in tree.read(readable):
            split, label = places[file]
            yield Photo(file, label, split, data)
        for file in sorted(set(places) & set(unreadable)):
            split, label = places[file]
            yield Photo(file, label, split, b"", problem=unreadable[file])

    facts = {**facts, "read_as": read_as(places) if layout is None else list(layout)}
    return Source(facts, len(places), photos(), tree.bytes_of(readable))
