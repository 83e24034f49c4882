"""`source: flowers`: TensorFlow's flower_photos.tgz, 3,670 photos in five class folders."""

from typing import Literal

from pydantic import Field

from stages.fetch.reading.archives import list_contents
from stages.fetch.reading.trees import open_tree
from stages.fetch.source import Source
from temper.network.downloads import obtain
from temper.settings.base import Sha256, Text
from temper.settings.fetch import ArchiveSettings


class Settings(ArchiveSettings):
    """`source: flowers`: TensorFlow's flower_photos.tgz, known by its checksum."""

    source: Literal["flowers"]
    archive: Text = Field(
        "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
        description="where the archive is: an address, of the publisher or of a mirror, or a local path",
    )
    sha256: Sha256 = Field(
        "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
        description="the expected SHA-256 checksum of the archive",
    )


def open_source(settings: Settings) -> Source:
    """The photos of the archive, labelled by their folders, without a published split."""
    path = obtain(settings.archive, settings.sha256, "archive")
    facts = {
        "source": "flowers",
        "from": "flower_photos.tgz",
        "sha256": settings.sha256,
        "origin": "The TensorFlow Team, Flowers, 2019",
        "licence": "CC BY 2.0; LICENSE.txt in the archive names the photographers",
    }
    # LICENSE.txt beside the class folders is not an image, so `open_tree` leaves it out.
    return open_tree(settings.archive, list_contents(path, settings.limits), None, facts)
