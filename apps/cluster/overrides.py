"""Parses options `-S` as DVC does, and turns them into runs that apps/queue has validated: one, or those of a grid."""

import json
from collections.abc import Sequence
from typing import Any

from apps.queue import postings
from apps.queue.postings import Run
from apps.serve.limits import Refusal
from temper.base.errors import TemperError


def runs(texts: Sequence[str], name: str | None, base: str) -> list[Run]:
    """The runs that the options `-S` describe, each one validated by the schema of params.yaml.

    Args:
        texts: the values of the options, such as "lr=3e-6", "~pack.fit", or "lr=1e-5,3e-6" and "seed=range(1,4)" for a
            grid.
        name: the name of the run, from which runs of a grid get theirs; `None` if none was given.
        base: the text of the params.yaml that the options change.

    Raises:
        TemperError: an option or a run is wrong; the message names the first such key.
    """
    from hydra.core.override_parser.types import ValueType  # noqa: PLC0415 - takes half a second, with DVC's part of it

    several = (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP, ValueType.RANGE_SWEEP)
    params: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}
    remove: list[str] = []
    for text in texts:
        override = _parsed(text)
        key = override.key_or_group
        if key in params or key in grid or key in remove:
            raise TemperError(f"-S {text}: expected each key once, received {key} twice; a grid is -S {key}=1,2")
        if override.is_delete():
            remove.append(key)
        elif not override.is_sweep_override():
            params[key] = override.value()
        elif override.value_type in several:
            grid[key] = [_parsed(f"{key}={one}").value() for one in override.sweep_string_iterator()]
        else:
            raise TemperError(
                f"-S {text}: expected a value, or several such as 1,2 or range(1,3), received a sweep of another kind"
            )
    if grid:  # there, a list means the values to try, so a value that is a list is put into another list
        params = {key: [value] if isinstance(value, list) else value for key, value in params.items()} | grid
    request = {"params": params, "remove": remove, "grid": bool(grid)} | ({"name": name} if name is not None else {})
    try:
        return postings.checked(postings.read(json.dumps(request).encode()), base)
    except Refusal as refusal:
        raise TemperError(refusal.sentence) from None


def _parsed(text: str) -> Any:
    """Parses an override with Hydra, as DVC does.

    Raises:
        TemperError: the text is not a valid override.
    """
    from dvc.utils.hydra import to_hydra_overrides  # noqa: PLC0415
    from hydra.errors import HydraException  # noqa: PLC0415

    try:
        (override,) = to_hydra_overrides([text])
    except HydraException:
        raise TemperError(f"-S {text}: expected KEY=VALUE, such as lr=3e-6, received something else") from None
    return override
