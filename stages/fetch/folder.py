"""`source: folder`: a folder, zip or tar of class folders, with or without split folders above them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from stages.fetch.archives import list_contents, read_files
from stages.fetch.layouts import place_by_folders, split_named
from stages.fetch.source import Photo, Source
from temper.errors import TemperError
from temper.params import Nothing


def open_source(settings: Nothing, local: Path) -> Source:
    """The files below the class folders of `local`, each labelled by the class folder it is in.

    Raises:
        TemperError: nothing is there, it cannot be read, or it does not hold class folders with files in them.
    """
    listing = list_contents(local)
    try:
        places = place_by_folders(listing.files, listing.folders)
    except TemperError as error:
        raise TemperError(f"{local}: {error}") from None

    def photos() -> Iterator[Photo]:
        for name, data in read_files(local, set(places)):
            split, label = places[name]
            yield Photo(name, label, split and split_named(split), data)

    facts: dict[str, object] = {"source": "folder", "from": local.name, "licence": "as its owner says"}
    if local.is_file():
        with local.open("rb") as archive:
            facts["sha256"] = hashlib.file_digest(archive, "sha256").hexdigest()
    return Source(facts, len(places), photos())
