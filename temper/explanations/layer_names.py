"""Checks names of layers from params.yaml against those that a backbone has. Needs no Keras."""

import difflib
from collections.abc import Sequence

from temper.base.errors import TemperError


def require_layers(key: str, chosen: Sequence[str], known: Sequence[str]) -> None:
    """Raises a TemperError, which suggests similar names, if `key` of params.yaml names a layer that is not known."""
    for name in chosen:
        if name not in known:
            near = difflib.get_close_matches(name, known, 5, cutoff=0.0)
            raise TemperError(
                f"{key}: expected layers of the backbone, received {name!r}; the nearest: {', '.join(near)}"
            )
