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


@dataclass(frozen=True)
class Source:
    """A source, opened. `photos` is read once, and always yields the same photos in the same order."""

    facts: Mapping[str, object]  # for source.json: from where, version, checksum, licence; no times, no machine paths
    total: int
    photos: Iterable[Photo]
