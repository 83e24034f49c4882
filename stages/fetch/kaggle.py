"""`source: kaggle`: the images of a Kaggle dataset or competition, labelled by their folders."""

from collections.abc import Iterator
from pathlib import Path

from stages.fetch.bundles import open_bundle
from stages.fetch.kaggle_downloads import obtain_dataset
from stages.fetch.layouts import Place, place_by_folders, place_by_patterns, split_named
from stages.fetch.source import Photo, Source
from temper.errors import TemperError
from temper.params import KaggleSource


def open_source(settings: KaggleSource, local: Path) -> Source:
    """The images of the downloaded files, archives opened, placed by `layout` or by the names of their folders.

    Raises:
        TemperError: what is missing or refused, or no image fits.
    """
    downloaded = obtain_dataset(settings.dataset, settings.files)
    bundle = open_bundle(downloaded.folder)
    try:
        if settings.layout is None:
            places = place_by_folders(bundle.files, bundle.folders)
        else:
            places = place_by_patterns(bundle.files, settings.layout)
    except TemperError as error:
        raise TemperError(f"sources.kaggle, {settings.dataset}: {error}") from None

    own = {name.lower(): split for name, split in settings.splits.items()}
    means = {split: own.get(split.lower()) or split_named(split) for split, _ in places.values() if split}
    places = {name: _translated(place, means) for name, place in places.items()}

    def photos() -> Iterator[Photo]:
        for name, data in bundle.read(set(places)):
            split, label = places[name]
            yield Photo(name, label, split, data)

    unplaced = sum(place == (None, None) for place in places.values())
    if unplaced:
        print(f"{unplaced} of {len(places)} images fit no layout: unlabelled")
    facts = {"source": "kaggle", **downloaded.facts, "in_no_layout": unplaced}
    return Source(facts, len(places), photos())


def _translated(place: Place, means: dict[str, str | None]) -> Place:
    """A place with the split that is meant; none if that is unknown."""
    if place[0] is None:
        return place
    split = means[place[0]]
    return (split, place[1]) if split else (None, None)
