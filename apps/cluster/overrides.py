"""`-S` as DVC reads it, into the runs that apps/queue checks: one, or all combinations of a grid."""

import json
from collections.abc import Sequence
from typing import Any

from apps.queue import postings
from apps.queue.postings import Run
from apps.serve.limits import Refusal
from temper.base.errors import TemperError


def runs(texts: Sequence[str], name: str | None, base: str) -> list[Run]:
    """The runs that the options `-S` ask for, each of which the schema accepts.

    Args:
        texts: such as "lr=3e-6", "~pack.fit", or "lr=1e-5,3e-6" and "seed=range(1,4)" for a grid.
        base: the text of the params.yaml that they start from.

    Raises:
        TemperError: with the first key that is wrong.
    """
    from hydra.core.override_parser.types import ValueType  # noqa: PLC0415 - half a second, with DVC's part of it

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
                f"-S {text}: expected a value, or several such as 1,2 or range(1,3), received another sweep"
            )
    if grid:  # where a list is the values to try, so one that is a value stands in another
        params = {key: [value] if isinstance(value, list) else value for key, value in params.items()} | grid
    request = {"params": params, "remove": remove, "grid": bool(grid)} | ({"name": name} if name is not None else {})
    try:
        return postings.checked(postings.read(json.dumps(request).encode()), base)
    except Refusal as refusal:
        raise TemperError(refusal.sentence) from None


def _parsed(text: str) -> Any:
    """Hydra's reading of an override, which is DVC's.

    Raises:
        TemperError: it is none.
    """
    from dvc.utils.hydra import to_hydra_overrides  # noqa: PLC0415
    from hydra.errors import HydraException  # noqa: PLC0415

    try:
        (override,) = to_hydra_overrides([text])
    except HydraException:
        raise TemperError(f"-S {text}: expected KEY=VALUE, such as lr=3e-6, received something else") from None
    return override
