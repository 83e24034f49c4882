"""Images labelled by the folders that they lie in, for all sources that read folders or archives."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from stages.fetch.reading.archives import is_archive
from stages.fetch.reading.layouts import place_by_folders, place_by_patterns, read_as
from stages.fetch.source import Photo, Source
from temper.base.errors import TemperError

LAYOUT = 'patterns such as "{split}/{label}/{name}", of which the first that fits counts; null: by the folders\' names'


def open_tree(
    name: str,
    files: Sequence[str],
    folders: Sequence[str],
    layout: Sequence[str] | None,
    read: Callable[[set[str]], Iterator[tuple[str, bytes]]],
    facts: Mapping[str, object],
    unreadable: Mapping[str, str] | None = None,
) -> Source:
    """The source of the images among `files`, placed by `layout` or by the names of their folders.

    Args:
        name: of the whole, for messages.
        folders: those that hold the files, and empty ones.
        read: the (name, bytes) of some of the files.
        facts: for source.json.
        unreadable: why others, which lie among the files, have no bytes; where a photo would be, each is a row.

    Raises:
        TemperError: no image fits, or the folders can be read in two ways.
    """
    unreadable = unreadable or {}
    listed = [*files, *unreadable]
    try:
        places = place_by_folders(listed, folders) if layout is None else place_by_patterns(listed, layout)
    except TemperError as error:
        archives = [file for file in files if is_archive(file)]
        inside = f"; in it lies the archive {archives[0]}: unpack it, or set `path` to it" if archives else ""
        raise TemperError(f"{name}: {error}{inside}") from None

    def photos() -> Iterator[Photo]:
        for file, data in read(set(places) - set(unreadable)):
            split, label = places[file]
            yield Photo(file, label, split, data)
        for file in sorted(set(places) & set(unreadable)):
            split, label = places[file]
            yield Photo(file, label, split, b"", problem=unreadable[file])

    return Source({**facts, "read_as": read_as(places) if layout is None else list(layout)}, len(places), photos())
