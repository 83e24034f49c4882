"""`source: flowers`: TensorFlow's flower_photos.tgz, 3,670 photos in five class folders."""

from collections.abc import Iterator
from pathlib import Path

from stages.fetch.archives import list_contents, read_files
from stages.fetch.layouts import place_by_folders, split_named
from stages.fetch.source import Photo, Source
from temper.downloads import obtain
from temper.errors import TemperError
from temper.params import FlowersSource


def open_source(settings: FlowersSource, local: Path) -> Source:
    """The photos of the archive, labelled by their folders, without a published split."""
    path = obtain(settings.archive, settings.sha256)
    listing = list_contents(path)
    try:
        places = place_by_folders(listing.files, listing.folders)
    except TemperError as error:
        raise TemperError(f"{settings.archive}: {error}") from None
    # LICENSE.txt beside the folders names every photographer: no photo, so it is left out above.

    def photos() -> Iterator[Photo]:
        for name, data in read_files(path, set(places)):
            split, label = places[name]
            yield Photo(name, label, split and split_named(split), data)

    facts = {
        "source": "flowers",
        "from": "flower_photos.tgz",
        "sha256": settings.sha256,
        "origin": "The TensorFlow Team, Flowers, 2019",
        "licence": "CC BY 2.0; LICENSE.txt in the archive names the photographers",
    }
    return Source(facts, len(places), photos())
