"""Images labelled by the folders that they lie in, for all sources that read folders or archives."""

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
        """Their names."""

    @property
    def folders(self) -> Sequence[str]:
        """Those that hold the files, and empty ones."""

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Why others, which lie among the files, have no bytes; where a photo would be, each is a row."""

    def read(self, names: set[str]) -> Iterator[tuple[str, bytes]]:
        """The (name, bytes) of some of the files."""

    def bytes_of(self, names: set[str]) -> int:
        """How much those files hold."""


def open_tree(name: str, tree: Tree, layout: Sequence[str] | None, facts: Mapping[str, object]) -> Source:
    """The source of the images in a tree, placed by `layout` or by the names of their folders.

    Args:
        name: of the whole, for messages.
        facts: for source.json.

    Raises:
        TemperError: no image fits, or the folders can be read in two ways.
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
