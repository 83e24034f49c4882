"""`source: cub`: Caltech-UCSD Birds-200-2011, 11,788 photos of 200 species, with boxes."""

import math
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from stages.fetch.reading.archives import list_contents
from stages.fetch.source import Photo, Source
from temper.base.errors import TemperError
from temper.network.downloads import obtain
from temper.settings.base import Sha256, Text
from temper.settings.fetch import ArchiveSettings


class Settings(ArchiveSettings):
    """`source: cub`: CUB_200_2011.tgz, known by its checksum."""

    source: Literal["cub"]
    archive: Text = Field(
        "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
        description="where the archive is: an address, of the publisher or of a mirror, or a local path",
    )
    sha256: Sha256 = Field(
        "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
        description="the expected SHA-256 checksum of the archive",
    )


_TABLES = ("images", "classes", "image_class_labels", "train_test_split", "bounding_boxes")


def open_source(settings: Settings) -> Source:
    """The photos with their published names (`001.Black_footed_Albatross`), splits and boxes.

    All of this comes from the archive's text files; the names of its folders are ignored.

    Raises:
        TemperError: the archive is not the published one, or its tables contradict each other.
    """
    path = obtain(settings.archive, settings.sha256, "archive")
    listing = list_contents(path, settings.limits)
    files = set(listing.files)
    top = next((name.removesuffix("images.txt") for name in sorted(files) if name.endswith("/images.txt")), "")
    wanted = {f"{top}{table}.txt": table for table in _TABLES}
    texts = {wanted[name]: data for name, data in listing.read(set(wanted) & files)}
    if set(texts) != set(_TABLES):
        lacking = sorted(set(_TABLES) - set(texts))
        raise TemperError(f"{settings.archive}: expected CUB_200_2011/{lacking[0]}.txt, found {sorted(files)[:5]}")
    try:
        described = {f"{top}images/{name}": photo for name, photo in _describe(texts).items()}
    except (KeyError, ValueError) as error:
        raise TemperError(
            f"{settings.archive}: expected CUB's tables, received a row that fits none: {error}"
        ) from None

    def photos() -> Iterator[Photo]:
        for name, data in listing.read(set(described) & files):
            split, label, box = described[name]
            yield Photo(name, label, split, data, box=box)
        for name in sorted(set(described) - files):
            split, label, box = described[name]
            yield Photo(name, label, split, b"", problem="named in images.txt, but not there")

    facts = {
        "source": "cub",
        "from": "CUB_200_2011.tgz",
        "sha256": settings.sha256,
        "origin": "The Caltech-UCSD Birds-200-2011 Dataset, C. Wah et al., CNS-TR-2011-001, 2011",
        "licence": "non-commercial research and education",
    }
    return Source(facts, len(described), photos(), listing.bytes_of(set(described)))


def _describe(texts: dict[str, bytes]) -> dict[str, tuple[str, str, tuple[float, float, float, float]]]:
    """The split, label and box (x1, y1, x2, y2) of each image, by its path below images/."""
    tables = {
        name: dict(line.split(maxsplit=1) for line in text.decode().splitlines() if line)
        for name, text in texts.items()
    }
    described = {}
    for number, name in tables["images"].items():
        x, y, width, height = map(float, tables["bounding_boxes"][number].split())
        split = {"1": "train", "0": "test"}[tables["train_test_split"][number]]
        label = tables["classes"][tables["image_class_labels"][number]]
        if not all(map(math.isfinite, (x, y, width, height))):
            raise ValueError(f"the box of {name}: {x, y, width, height}")
        described[name] = (split, label, (x, y, x + width, y + height))
    return described
