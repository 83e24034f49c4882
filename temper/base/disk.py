"""Checks before the work, and not after hours of it, whether the result of a stage fits on the disk."""

import os
from pathlib import Path

from temper.base.errors import TemperError

SPARE = 64 * 2**20  # bytes kept free for other programs and for what the estimate leaves out


def require_room(folder: str | Path, expected_bytes: int, what: str, remedy: str) -> None:
    """Refuses work whose result would not fit on the disk.

    Args:
        folder: where the result will be written; it need not exist yet.
        expected_bytes: an estimate of the bytes that will be written.
        what: the name of the result, for the message, such as "the packed images (60,000 of 224x224)".
        remedy: what the user can do besides freeing space, such as "lower image_size".

    Raises:
        TemperError: the disk has less free space than `expected_bytes` and the reserve `SPARE`.
    """
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    stat = os.statvfs(place)
    free = stat.f_bavail * stat.f_frsize
    if expected_bytes + SPARE > free:
        raise TemperError(
            f"{what}: expected {in_words(expected_bytes + SPARE)} of free disk space at {folder}, found "
            f"{in_words(free)}; nothing was written: free some space, or {remedy}"
        )


def in_words(size: int) -> str:
    """A number of bytes for people: "512 KB", "4.2 GB"."""
    if size < 1000:
        return f"{size} bytes"
    units = ("KB", "MB", "GB", "TB", "PB", "EB")
    power = min((len(str(size)) - 1) // 3, len(units))
    amount = size / 1000**power
    return f"{amount:.1f} {units[power - 1]}" if amount < 9.95 else f"{amount:.0f} {units[power - 1]}"
