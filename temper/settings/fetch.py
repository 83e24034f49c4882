"""The settings of `fetch`: any number of named sources. A source's own keys are in stages/fetch/sources/NAME.py."""

import posixpath
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field

from temper.settings.base import Section, StageSettings, Text

# The name of a source is also the name of its folder in data/raw, and part of its stage's name: fetch@NAME.
SourceName = Annotated[str, Field(pattern="^[A-Za-z0-9_-]+$")]


def _found_from_copies_too(path: str) -> str:
    """Refuses a relative path that leads out of the repository.

    DVC resolves it from the folder in which it works, which is another one for `dvc exp run --temp` and for the queue.
    """
    if posixpath.normpath(path).startswith("../"):
        raise ValueError(
            "expected a path in the repository or an absolute one, because experiments in copies of the repository "
            f"would look elsewhere, received {path!r}; write {str(Path(path).resolve())!r}"
        )
    return path


class SourceSettings(Section):
    """The settings that every source has."""

    source: Text = Field(description="the kind of source: a module in stages/fetch/sources")
    path: Annotated[Text, AfterValidator(_found_from_copies_too)] = Field(
        description="the file or folder on this machine that DVC watches for changes: the photos, archive or table; "
        "for a source that is downloaded, its own module, stages/fetch/sources/NAME.py"
    )


class Limits(NamedTuple):
    """The most that is read from folders and archives."""

    file_bytes: int  # the largest file that is read into memory
    unpacked_bytes: int  # the total of all files in an archive, including those in archives inside it


class ArchiveSettings(SourceSettings):
    """The settings of sources that read folders and archives: limits against files that unpack to far too much.

    4 MB of zip can hold 4 GB. The defaults are larger than every photo that can be decoded (200 megapixels,
    uncompressed, are 600 MB) and every published dataset of photos (ImageNet-21k is 1.3 TB), and small enough not to
    fill a machine by mistake.
    """

    max_file_mb: Annotated[int, Field(ge=1, le=1000)] = Field(
        600,
        description="the largest file that is read, in MB; a larger photo or table stops the run, whatever size its "
        "archive claims",
    )
    max_unpacked_gb: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        2000,
        description="the most that all files in an archive may take, in GB, including those in archives inside it",
    )

    @property
    def limits(self) -> Limits:
        """The limits in bytes."""
        return Limits(self.max_file_mb * 10**6, self.max_unpacked_gb * 10**9)


class Settings(StageSettings):
    """What `fetch` reads."""

    fetch: Annotated[dict[SourceName, dict[str, Any]], Field(min_length=1)] = Field(
        description="the sources, under names that you choose; each has a stage fetch@NAME and a folder data/raw/NAME"
    )
