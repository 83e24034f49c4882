"""A place in the backbone, as `unfreeze_from` names it."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from temper.settings.base import Text


def _share(value: Any) -> Any:
    """A number as a share, even if YAML took it for text; names of layers unchanged."""
    if isinstance(value, str | int) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            return value
    return value


# Where the backbone opens: a layer or block of it, a share of its layers, all, or none.
Place = Annotated[Text | Annotated[float, Field(gt=0, le=1)], BeforeValidator(_share)]
