"""The type of a place in the backbone, as `unfreeze_from` and `down_to` take it."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from temper.settings.base import Text


def _share(value: Any) -> Any:
    """Turns a number into a float, even if YAML took it for text; returns names of layers unchanged."""
    if isinstance(value, str | int) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            return value
    return value


# Where the trainable part of the backbone begins: a layer or block, a share of the layers, all, or none.
Place = Annotated[Text | Annotated[float, Field(gt=0, le=1)], BeforeValidator(_share)]
