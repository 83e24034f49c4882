"""`source: kaggle`: the images of a Kaggle dataset or competition, labelled by their folders."""

from typing import Annotated, Literal

from pydantic import Field

from stages.fetch.reading.bundles import open_bundle
from stages.fetch.reading.kaggle_downloads import obtain_dataset
from stages.fetch.reading.notations import Layout, Slug
from stages.fetch.reading.trees import LAYOUT, open_tree
from stages.fetch.source import Source
from temper.settings.base import Text
from temper.settings.fetch import ArchiveSettings


class Settings(ArchiveSettings):
    """`source: kaggle`: a dataset or a competition, whole or some of its files."""

    source: Literal["kaggle"]
    dataset: Slug = Field(
        description="the dataset (owner/name, or owner/name/versions/3 for one version) or competition to download"
    )
    files: list[Text] = Field([], description="the names of the files to download; []: all")
    layout: Annotated[list[Layout], Field(min_length=1)] | None = Field(None, description=LAYOUT)


def open_source(settings: Settings) -> Source:
    """The images of the downloaded files, also of archives among them.

    `layout` or else the names of the folders give each image its split and label.

    Raises:
        TemperError: the dataset, its files or the credentials are missing or refused, or no image fits the layout.
    """
    downloaded = obtain_dataset(settings.dataset, settings.files)
    bundle = open_bundle(downloaded.folder, settings.limits)
    return open_tree(settings.dataset, bundle, settings.layout, {"source": "kaggle", **downloaded.facts})
