"""`source: kaggle`: the images of a Kaggle dataset or competition, labelled by their folders."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from stages.fetch.reading.bundles import open_bundle
from stages.fetch.reading.kaggle_downloads import obtain_dataset
from stages.fetch.reading.layouts import place_by_folders, place_by_patterns
from stages.fetch.reading.notations import Layout, Slug
from stages.fetch.source import Photo, Source
from temper.base.errors import TemperError
from temper.settings.base import Text
from temper.settings.fetch import SourceSettings


class Settings(SourceSettings):
    """`source: kaggle`: a dataset or a competition, whole or some of its files."""

    source: Literal["kaggle"]
    dataset: Slug = Field(description="owner/name, owner/name/versions/3, or a competition's name")
    files: list[Text] = Field([], description="by name; []: all of it")
    layout: Annotated[list[Layout], Field(min_length=1)] | None = Field(
        None,
        description='patterns such as "{split}/{label}/{name}", the first that fits counts; null: as folder',
    )
    splits: dict[str, Literal["train", "validation", "test"]] = Field({}, description="folders that mean a split")


def open_source(settings: Settings) -> Source:
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
            places = place_by_patterns(bundle.files, settings.layout, settings.splits)
    except TemperError as error:
        raise TemperError(f"{settings.dataset}: {error}") from None

    def photos() -> Iterator[Photo]:
        for name, data in bundle.read(set(places)):
            split, label = places[name]
            yield Photo(name, label, split, data)

    unplaced = sum(place == (None, None) for place in places.values())
    if unplaced:
        print(f"{unplaced} of {len(places)} images fit no layout: unlabelled")
    facts = {"source": "kaggle", **downloaded.facts, "in_no_layout": unplaced}
    return Source(facts, len(places), photos())
