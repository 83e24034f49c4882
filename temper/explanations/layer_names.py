"""Names of layers that a person chose, compared with those that a backbone has. Needs no Keras."""

import difflib
from collections.abc import Sequence

from temper.base.errors import TemperError


def require_layers(key: str, chosen: Sequence[str], known: Sequence[str]) -> None:
    """Raises a TemperError if `key` of params.yaml names a layer that is not known; it lists the nearest."""
    for name in chosen:
        if name not in known:
            near = difflib.get_close_matches(name, known, 5, cutoff=0.0)
            raise TemperError(
                f"{key}: expected layers of the backbone, received {name!r}; the nearest: {', '.join(near)}"
            )
