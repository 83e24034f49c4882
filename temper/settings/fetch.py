"""The settings of `fetch`: any number of named sources. A source's own keys are in its module, stages/fetch/sources."""

from typing import Annotated, Any

from pydantic import Field

from temper.settings.base import Section, StageSettings, Text

# The name of a source is that of its folder in data/raw, and a part of its stage's name: fetch@NAME.
SourceName = Annotated[str, Field(pattern="^[A-Za-z0-9_-]+$")]


class SourceSettings(Section):
    """What the settings of every source have."""

    source: Text = Field(description="the kind of source: a module of stages/fetch/sources")
    path: Text = Field(
        description="what DVC watches on this machine: the photos, archive or table; a source that is downloaded "
        "names its own module, stages/fetch/sources/NAME.py"
    )


class Settings(StageSettings):
    """What `fetch` reads."""

    fetch: Annotated[dict[SourceName, dict[str, Any]], Field(min_length=1)] = Field(
        description="the sources, by names of your own; each becomes a stage fetch@NAME and a folder data/raw/NAME"
    )
