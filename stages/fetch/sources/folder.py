"""`source: folder`: a folder, zip or tar of class folders, with or without split folders above them."""

import hashlib
from typing import Annotated, Literal

from pydantic import Field

from stages.fetch.reading.archives import list_contents
from stages.fetch.reading.notations import Layout
from stages.fetch.reading.trees import LAYOUT, open_tree
from stages.fetch.source import Source
from temper.base.paths import existing
from temper.settings.fetch import ArchiveSettings


class Settings(ArchiveSettings):
    """`source: folder`: the class folders, or the archive of them, at `path`."""

    source: Literal["folder"]
    layout: Annotated[list[Layout], Field(min_length=1)] | None = Field(None, description=LAYOUT)


def open_source(settings: Settings) -> Source:
    """The files below the class folders of `path`, each labelled with the class folder it is in, or by `layout`.

    Raises:
        TemperError: there is nothing at `path`, it cannot be read, or it has no class folders with files in them.
    """
    local = existing(settings.path)
    facts: dict[str, object] = {"source": "folder", "from": local.name, "licence": "as its owner says"}
    if local.is_file():
        with local.open("rb") as archive:
            facts["sha256"] = hashlib.file_digest(archive, "sha256").hexdigest()
    return open_tree(settings.path, list_contents(local, settings.limits), settings.layout, facts)
