"""What `overview` reads of the settings: the names of the sources, for a headline."""

from typing import Any

from temper.settings.base import StageSettings


class Settings(StageSettings):
    """What `overview` reads."""

    fetch: dict[str, Any]
