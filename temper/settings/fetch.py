"""The settings of `fetch`: any number of named sources. A source's own keys are in its module, stages/fetch/sources."""

import posixpath
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field

from temper.settings.base import Section, StageSettings, Text

# The name of a source is that of its folder in data/raw, and a part of its stage's name: fetch@NAME.
SourceName = Annotated[str, Field(pattern="^[A-Za-z0-9_-]+$")]


def _found_from_copies_too(path: str) -> str:
    """Refuses a relative path that leads out of the repository.

    DVC looks for it from the folder that it works in, and that is another one for `dvc exp run --temp` and the queue.
    """
    if posixpath.normpath(path).startswith("../"):
        raise ValueError(
            "expected a path in the repository or an absolute one, because experiments in copies of the repository "
            f"would look elsewhere, received {path!r}; write {str(Path(path).resolve())!r}"
        )
    return path


class SourceSettings(Section):
    """What the settings of every source have."""

    source: Text = Field(description="the kind of source: a module of stages/fetch/sources")
    path: Annotated[Text, AfterValidator(_found_from_copies_too)] = Field(
        description="what DVC watches on this machine: the photos, archive or table; a source that is downloaded "
        "names its own module, stages/fetch/sources/NAME.py"
    )


class Limits(NamedTuple):
    """What is read from folders and archives at most."""

    file_bytes: int  # of one file that is read into memory
    unpacked_bytes: int  # of all files in an archive, those in archives inside it too


class ArchiveSettings(SourceSettings):
    """What the settings have of sources that read folders and archives.

    4 MB of zip can hold 4 GB. The defaults are beyond every photo that decodes (200 megapixels, uncompressed, are 600
    MB) and every published dataset of photos (ImageNet-21k is 1.3 TB), and below what fills a machine by mistake.
    """

    max_file_mb: Annotated[int, Field(ge=1, le=1000)] = Field(
        600, description="MB of one file; a larger photo or table stops the run, whatever its archive claims"
    )
    max_unpacked_gb: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        2000, description="GB of all files in an archive, with those in the archives inside it"
    )

    @property
    def limits(self) -> Limits:
        """The limits in bytes."""
        return Limits(self.max_file_mb * 10**6, self.max_unpacked_gb * 10**9)


class Settings(StageSettings):
    """What `fetch` reads."""

    fetch: Annotated[dict[SourceName, dict[str, Any]], Field(min_length=1)] = Field(
        description="the sources, by names of your own; each becomes a stage fetch@NAME and a folder data/raw/NAME"
    )
