"""What would not fit on the disk is refused before the work."""

import os
from pathlib import Path

import pytest

from temper.base.disk import in_words, require_room
from temper.base.errors import TemperError


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 KB"),
        (9_900, "9.9 KB"),
        (512_000, "512 KB"),
        (4_200_000_000, "4.2 GB"),
        (123_456_789_012_345, "123 TB"),
    ],
)
def test_bytes_in_words(size: int, words: str) -> None:
    assert in_words(size) == words


def test_what_fits_passes(tmp_path: Path) -> None:
    require_room(tmp_path / "not" / "there" / "yet", 1000, "a small thing", "make it smaller")


def test_what_does_not_fit_is_refused_with_both_figures(tmp_path: Path) -> None:
    stat = os.statvfs(tmp_path)
    with pytest.raises(TemperError, match=r"the packs: expected .* free disk space at .*, found .*lower image_size"):
        require_room(tmp_path / "packed", stat.f_blocks * stat.f_frsize, "the packs", "lower image_size")
