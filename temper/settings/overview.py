"""The settings that `overview` reads: the names of the sources, for its headline."""

from typing import Any

from temper.settings.base import StageSettings


class Settings(StageSettings):
    """What `overview` reads."""

    fetch: dict[str, Any]
