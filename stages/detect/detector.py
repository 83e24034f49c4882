"""What every detector that looks at photos is, and how it is spared the photos that it has seen before."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from stages.detect.cache import Cache
from temper import photos, tables
from temper.boxes import Boxes
from temper.errors import TemperError


class Photo(NamedTuple):
    """An encoded photo."""

    image_id: str
    path: str  # as published, for messages
    data: bytes


class Detector(Protocol):
    """Finds objects in photos.

    Attributes:
        key: hex digits of everything besides the photo that its boxes depend on: weights, settings, versions, code.
    """

    key: str

    def detect(self, photos: Iterator[Photo]) -> Iterator[tuple[str, Boxes]]:
        """The image_id and the boxes of each photo, in any order, read as a stream."""


def decode(photo: Photo) -> photos.Pixels:
    """The upright pixels of a photo.

    Raises:
        TemperError: it does not decode, although it did when it was fetched.
    """
    try:
        return photos.decode(photo.data)
    except photos.BadPhoto as reason:
        raise undecodable(photo, str(reason)) from None


def undecodable(photo: Photo, reason: str) -> TemperError:
    """What to say of a photo that decoded when it was fetched and no longer does."""
    return TemperError(
        f"detect: {photo.path} (image {photo.image_id}): expected the photo that decoded when it was fetched, "
        f"received {reason}; run dvc repro --force fetch. What was detected before it is kept."
    )


def find_new(raw: str, images: pa.Table, name: str, detector: Detector) -> Iterator[tuple[str, Boxes]]:
    """The boxes of each image, in order; only photos that this detector never saw are shown to it.

    A run that was killed goes on where it was.
    """
    first = _first_of_each(images)
    with Cache(name, detector.key) as cache:
        known = cache.image_ids()
        new = first.filter(pa.array([image_id not in known for image_id in first["image_id"].to_pylist()], pa.bool_()))
        if len(new):
            found = detector.detect(_stream(raw, new))
            for image_id, boxes in tqdm(found, "detect", len(new), unit="image", disable=None):
                cache.add(image_id, boxes)
        print(f"{name}: {len(new)} images detected now, {len(first) - len(new)} before")
        for image_id in first["image_id"].to_pylist():
            yield image_id, cache.boxes(image_id)


def _first_of_each(images: pa.Table) -> pa.Table:
    """The rows of `images`, in order, without those that repeat an image_id."""
    rows = pa.table({"image_id": images["image_id"], "place": pa.array(range(len(images)), pa.int64())})
    first = rows.group_by("image_id").aggregate([("place", "min")])["place_min"]
    return images.take(first.take(pc.sort_indices(first)))


def _stream(raw: str, images: pa.Table) -> Iterator[Photo]:
    names = zip(images["image_id"].to_pylist(), images["path"].to_pylist(), strict=True)
    for (image_id, path), data in zip(names, tables.stream_images(raw, images), strict=True):
        yield Photo(image_id, path, data)
