"""`auxiliary.source: none`: no photos beside those of the source."""

from pathlib import Path

from stages.fetch.source import Source
from temper.params import Nothing


def open_source(settings: Nothing, local: Path) -> Source:
    """A source of nothing."""
    return Source({"source": "none"}, 0, ())
