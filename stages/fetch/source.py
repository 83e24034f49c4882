"""What each source returns to `fetch`: its photos, and facts about it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Photo:
    """One published image."""

    path: str  # as published, with forward slashes
    label: str | None  # as published; None: unlabelled
    split: str | None  # as published, such as "training_set": `normalize` decides what it means; None: no split given
    data: bytes  # the encoded file, unchanged
    coarse: str | None = None  # a second, coarser label, if the source publishes one
    box: tuple[float, float, float, float] | None = None  # published: x1, y1, x2, y2, pixels of the upright image
    licence: str | None = None  # of this photo, if the source states it
    problem: str | None = None  # why there are no bytes, such as a URL that answers 404


@dataclass(frozen=True)
class Source:
    """An opened source. `photos` can be iterated once; each run yields the same photos in the same order."""

    facts: Mapping[str, object]  # for source.json: origin, version, checksum, licence; no times, no machine paths
    total: int  # how many photos there are
    photos: Iterable[Photo]
    bytes: int = 0  # the size of all photos, as far as it is known before they are read
