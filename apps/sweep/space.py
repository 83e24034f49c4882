"""The search space of a sweep: the values of a trial, the points of a grid, and the params.yaml that they result in."""

import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import yaml

from apps.sweep.settings import Param, Sweep
from temper.base.errors import TemperError
from temper.settings.check import refuse_wrong_params
from temper.tracking.finished import flattened

Values = dict[str, Any]  # of a trial, by dotted key; a param whose `when` does not hold is absent
_MOST = 100_000  # points in a grid
_DIGITS = 3  # significant digits of a sampled number: more would only make params.yaml hard to read


class Suggests(Protocol):
    """The methods of Optuna's trial that are used here."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number between two ends."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        """A whole number between two ends."""

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        """One of a list."""


def is_searched(param: Param, values: Values) -> bool:
    """Whether a param's `when` holds, given a trial's values of the params above it."""
    return all(key in values and values[key] in wanted for key, wanted in param.when.items())


def assigned(params: dict[str, Param], choose: Callable[[str, Param], Any]) -> Values:
    """The values of a trial: calls `choose` for each param in the order of the file, if the param's `when` holds."""
    values: Values = {}
    for key, param in params.items():
        if is_searched(param, values):
            values[key] = choose(key, param)
    return values


def suggested(trial: Suggests, params: dict[str, Param]) -> Values:
    """The values that Optuna suggests for a trial. For the same trial, they are always the same."""
    return assigned(params, lambda key, param: _suggest(trial, key, param))


def _suggest(trial: Suggests, key: str, param: Param) -> Any:
    if param.values is not None:
        names = [_name(value) for value in param.values]
        return param.values[names.index(trial.suggest_categorical(key, names))]
    if param.integers is not None:
        low, high = param.integers
        return trial.suggest_int(key, low, high, step=int(param.step or 1))
    least, most = param.log or param.range or [0.0, 1.0]
    value = trial.suggest_float(key, least, most, step=param.step, log=param.log is not None)
    return value if param.step else min(max(float(f"{value:.{_DIGITS}g}"), least), most)


def _name(value: Any) -> Any:
    """A listed value as Optuna stores it: lists and mappings as JSON text."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def points(param: Param) -> list[Any]:
    """All values of a list, of integers, or of a range with a step; of a continuous range, only its two ends."""
    if param.values is not None:
        return list(param.values)
    if param.integers is not None:
        return list(range(param.integers[0], param.integers[1] + 1, int(param.step or 1)))
    low, high = param.log or param.range or [0.0, 1.0]
    if param.step is None:
        return [low, high]
    return [float(f"{low + number * param.step:.12g}") for number in range(int((high - low) / param.step + 1e-9) + 1)]


def grid(params: dict[str, Param]) -> list[Values]:
    """Every point of a grid; the last param changes fastest. A param is left out of points where its `when` fails.

    Raises:
        TemperError: there are more than 100,000.
    """
    found = list(islice(_grid(list(params.items()), {}), _MOST + 1))
    if len(found) > _MOST:
        raise TemperError(f"params: expected a grid of at most {_MOST:,} points, received more; take the sampler tpe")
    return found


def _grid(params: list[tuple[str, Param]], values: Values) -> Iterator[Values]:
    if not params:
        yield values
        return
    (key, param), rest = params[0], params[1:]
    if not is_searched(param, values):
        yield from _grid(rest, values)
        return
    for value in points(param):
        yield from _grid(rest, values | {key: value})


def to_optuna(params: dict[str, Param], values: Values) -> dict[str, Any]:
    """The values of a trial as Optuna stores them, to enqueue a trial with them."""
    return {key: _name(value) if params[key].values is not None else value for key, value in values.items()}


def varied(params: dict[str, Param]) -> list[str]:
    """The keys of the params that can have more than one value."""
    return [key for key, param in params.items() if param.values is None or len(param.values) > 1]


def in_words(values: Values, params: dict[str, Param]) -> str:
    """The values of the params that vary, as text for people; all values, if none varies."""
    keys = [key for key in values if key in varied(params)] or list(values)
    return ", ".join(f"{key} {shown(values[key])}" for key in keys)


def shown(value: Any) -> str:
    """A value as text for people: {name: MobileNet, arguments: {alpha: 0.25}} becomes "MobileNet, alpha 0.25"."""
    if isinstance(value, dict) and value:
        leaves = flattened(value)
        return ", ".join(
            shown(leaf) if key == "name" else f"{key.split('.')[-1]} {shown(leaf)}" for key, leaf in leaves
        )
    return f"{value:g}" if isinstance(value, float) else str(_name(value))


# --- What a trial changes in params.yaml


def changed(base: dict[str, Any], params: dict[str, Param], values: Values) -> dict[str, Any]:
    """The content of params.yaml in a trial. The keys of `params` that are not in `values` are removed."""
    content = copy.deepcopy(base)
    for key in (*params, *values):  # `values` may have other keys too, such as `seed`
        *sections, last = key.split(".")
        inside = content
        for section in sections:
            if not isinstance(inside.get(section), dict):
                inside[section] = {}
            inside = inside[section]
        if key in values:
            inside[last] = values[key]
        else:
            inside.pop(last, None)
    return content


def overrides(base: dict[str, Any], params: dict[str, Param], values: Values) -> list[str]:
    """The same changes as `changed`, as overrides for `dvc exp run -S`, in the order in which DVC must apply them."""
    found: list[str] = []
    for key in dict.fromkeys((*params, *values)):
        old = _old(base, key)
        if key not in values:
            found += [] if old is None else [f"~{key}"]
        elif isinstance(values[key], dict):  # removed first, or DVC would merge the two
            found += ([] if old is None else [f"~{key}"]) + [f"+{key}={_hydra(values[key])}"]
        else:
            found.append(f"++{key}={_hydra(values[key])}")
    return found


def _old(base: dict[str, Any], key: str) -> tuple[Any] | None:
    """The value of a dotted key, in a tuple, because it may be `None`; `None` if there is no such key."""
    inside: Any = base
    for part in key.split("."):
        if not isinstance(inside, dict) or part not in inside:
            return None
        inside = inside[part]
    return (inside,)


def _hydra(value: Any) -> str:
    """A value in Hydra's notation, which -S takes: JSON, except that keys have no quotes."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_hydra(inside)}" for key, inside in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(_hydra, value))}]"
    return json.dumps(value, ensure_ascii=False)


# --- What is refused before anything runs


def refuse_wrong_space(sweep: Sweep, base: dict[str, Any], path: str) -> None:
    """Checks the params.yaml that results from each listed value, and from both ends of each range, one at a time.

    Raises:
        TemperError: a value is not allowed; the message names the key.
    """
    for key, param in sweep.params.items():
        ends = points(param)
        for value in ends if param.values is not None else {ends[0], ends[-1]}:
            refuse_wrong_values(base, sweep.params, _with(sweep.params, key, value), path)


def _with(params: dict[str, Param], key: str, value: Any) -> Values:
    """The values of a trial in which a param has this value.

    The params that its `when` names, directly or through theirs, have the first value for which it holds. All others
    have their first value.
    """
    wanted, waiting = {key: value}, [key]
    while waiting:
        for other, allowed in params[waiting.pop()].when.items():
            if other not in wanted:
                wanted[other] = allowed[0]
                waiting.append(other)
    return assigned(params, lambda name, param: wanted[name] if name in wanted else points(param)[0])


def refuse_wrong_values(base: dict[str, Any], params: dict[str, Param], values: Values, path: str) -> None:
    """Checks params.yaml as it would be in a trial.

    Raises:
        TemperError: the pipeline would refuse it, or `fine_tune.on_interrupt` is `keep`.
    """
    content = changed(base, params, values)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "params.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
        try:
            refuse_wrong_params(file)
        except TemperError as error:
            said = str(error).removeprefix(f"{file}: ")
            raise TemperError(f"{path}: {said} ({in_words(values, params)})") from None
    # With `keep`, a pruned phase exits with 0, so DVC would keep it as the result of these params.
    if content["fine_tune"].get("on_interrupt") == "keep":
        raise TemperError(f"{path}: fine_tune.on_interrupt: expected resume for a sweep, received keep")
