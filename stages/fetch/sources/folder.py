"""`source: folder`: a folder, zip or tar of class folders, with or without split folders above them."""

import hashlib
from collections.abc import Iterator
from typing import Literal

from stages.fetch.reading.archives import list_contents, read_files
from stages.fetch.reading.layouts import place_by_folders
from stages.fetch.source import Photo, Source
from temper.base.errors import TemperError
from temper.base.paths import existing
from temper.settings.fetch import SourceSettings


class Settings(SourceSettings):
    """`source: folder`: the class folders, or the archive of them, at `path`."""

    source: Literal["folder"]


def open_source(settings: Settings) -> Source:
    """The files below the class folders of `path`, each labelled by the class folder it is in.

    Raises:
        TemperError: nothing is there, it cannot be read, or it does not hold class folders with files in them.
    """
    local = existing(settings.path)
    listing = list_contents(local)
    try:
        places = place_by_folders(listing.files, listing.folders)
    except TemperError as error:
        raise TemperError(f"{local}: {error}") from None

    def photos() -> Iterator[Photo]:
        for name, data in read_files(local, set(places)):
            split, label = places[name]
            yield Photo(name, label, split, data)

    facts: dict[str, object] = {"source": "folder", "from": local.name, "licence": "as its owner says"}
    if local.is_file():
        with local.open("rb") as archive:
            facts["sha256"] = hashlib.file_digest(archive, "sha256").hexdigest()
    return Source(facts, len(places), photos())
