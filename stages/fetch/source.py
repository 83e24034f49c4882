"""What each source hands to `fetch`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Photo:
    """One published image."""

    path: str  # as published, with forward slashes
    label: str | None  # as published; None: unlabelled
    split: str | None  # train, validation or test; None: the source has no splits
    data: bytes  # encoded, untouched
    coarse: str | None = None  # a second, coarser label, where the source publishes one
    box: tuple[float, float, float, float] | None = None  # published: x1, y1, x2, y2, pixels of the upright image
    licence: str | None = None  # of this photo, where the source says it
    problem: str | None = None  # why there are no bytes, such as an address that answers 404


@dataclass(frozen=True)
class Source:
    """A source, opened. `photos` is read once, and always yields the same photos in the same order."""

    facts: Mapping[str, object]  # for source.json: from where, version, checksum, licence; no times, no machine paths
    total: int
    photos: Iterable[Photo]
    bytes: int = 0  # of all photos, as well as it is known before they are read
