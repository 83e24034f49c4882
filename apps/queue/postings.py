"""Reads posted runs and grids strictly, expands grids, and validates every run before anything is queued.

A run is validated with exactly the params.yaml that it will have: DVC's own function writes the values into a copy of
the file, which is then compared with the intended values and checked by the schema.
"""

import copy
import hashlib
import itertools
import json
import re
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.serve.limits import Refusal
from temper.base import loading
from temper.base.errors import TemperError
from temper.settings.check import refuse_wrong_params

MOST_BYTES = 100_000  # in a request
MOST_RUNS = 200  # in a grid
_KEY = re.compile(r"[A-Za-z_][\w-]*(\.\w[\w-]*)*", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")  # a valid name for git; not a path, nor an option of a program
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_KNOWN = {"params": dict, "remove": list, "name": str, "grid": bool, "id": str}
_hydra = threading.Lock()  # hydra's parsers are not documented as thread-safe


@dataclass(frozen=True)
class Wish:
    """A request for a run or a grid.

    Attributes:
        params: values by dotted key; in a grid, a list means the values to try.
        remove: dotted keys to remove from params.yaml.
        name: the name of the run, or the prefix of the names of a grid's runs, which are numbered.
        grid: whether it is a grid.
        id: chosen by the client; a repeated request is recognized by it.
    """

    params: dict[str, Any]
    remove: tuple[str, ...]
    name: str
    grid: bool
    id: str

    @property
    def digest(self) -> str:
        """A checksum of the contents, which tells different requests with the same id apart."""
        text = json.dumps([self.params, self.remove, self.grid], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Run:
    """One run: its name, and the overrides that `dvc exp run -S` takes."""

    name: str
    overrides: tuple[str, ...]


def read(body: bytes) -> Wish:
    """The request in a body.

    Raises:
        Refusal: 400 if the body is not JSON, 422 if it is not a valid run or grid.
    """
    try:
        content = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"expected JSON, received something else: {loading.short(str(error))}") from None
    if not isinstance(content, dict):
        raise _wrong("a request is an object", content)
    for key, value in content.items():
        if key not in _KNOWN:
            raise Refusal(422, loading.unknown_key(key, sorted(_KNOWN)))
        if not isinstance(value, _KNOWN[key]):
            raise _wrong(f"{key}: expected {_KNOWN[key].__name__}", value)
    remove = content.get("remove", [])
    for key in remove:
        _refuse_wrong_key(key)
    name, identity = content.get("name"), content.get("id")
    if name is not None and not _NAME.fullmatch(name):
        raise _wrong("name: expected up to 60 letters, digits, - and _, first a letter or digit", name)
    if identity is not None and not _ID.fullmatch(identity):
        raise _wrong("id: expected up to 100 letters, digits, dots, - and _, first a letter or digit", identity)
    params = dict(_leaves(content.get("params", {})))
    wish = Wish(params, tuple(remove), name or f"run-{uuid.uuid4().hex[:10]}", content.get("grid", False), "")
    return Wish(wish.params, wish.remove, wish.name, wish.grid, identity or uuid.uuid4().hex)


def runs(wish: Wish) -> list[tuple[Run, dict[str, Any]]]:
    """The runs of a request with their values: a single run, or all combinations of a grid, the last key fastest.

    Raises:
        Refusal: the grid has no list of values, a value twice, or too many runs.
    """
    if not wish.grid:
        return [(Run(wish.name, overrides(wish.params, wish.remove)), wish.params)]
    varied = {key: value for key, value in wish.params.items() if isinstance(value, list)}
    if not varied or not all(varied.values()):
        raise Refusal(422, "grid: expected at least one key with a list of values, none of them empty, received none")
    count = 1
    for key, values in varied.items():
        count *= len(values)
        if len({json.dumps(value, sort_keys=True) for value in values}) < len(values):
            raise Refusal(422, f"{key}: expected each value once, received one twice")
    if count > MOST_RUNS:
        raise Refusal(422, f"grid: expected at most {MOST_RUNS} runs, received {count}")
    found = []
    for number, chosen in enumerate(itertools.product(*varied.values()), 1):
        params = wish.params | dict(zip(varied, chosen, strict=True))
        found.append((Run(f"{wish.name}-{number}", overrides(params, wish.remove)), params))
    return found


def overrides(params: dict[str, Any], remove: Sequence[str]) -> tuple[str, ...]:
    """The arguments for `dvc exp run -S`. Values are written as JSON, so that DVC takes a list for one value."""
    values = [f"++{key}={json.dumps(value, ensure_ascii=False)}" for key, value in params.items()]
    return (*(f"~{key}" for key in remove), *values)


def checked(wish: Wish, base: str) -> list[Run]:
    """The runs of a request, after validating each of them.

    Args:
        base: the text of the params.yaml that they start from.

    Raises:
        Refusal: 422 with the first key that is wrong.
    """
    every = runs(wish)
    with tempfile.TemporaryDirectory() as folder:
        for run, params in every:
            try:
                _check(run, params, wish.remove, base, Path(folder))
            except TemperError as error:
                sentence = str(error).replace(f"{folder}/", "")
                raise Refusal(422, f"{run.name}: {sentence}" if wish.grid else sentence) from None
    return [run for run, _ in every]


def _check(run: Run, params: dict[str, Any], remove: Sequence[str], base: str, folder: Path) -> None:
    from dvc.exceptions import DvcException  # noqa: PLC0415 - half a second that only a server pays
    from dvc.utils.hydra import apply_overrides  # noqa: PLC0415

    path = folder / "params.yaml"
    path.write_text(base, encoding="utf-8")
    meant = loading.read(path)
    for key in remove:
        _take(meant, key)
    for key, value in params.items():
        _set(meant, key, value)
    try:
        with _hydra:
            apply_overrides(path, list(run.overrides))
        same = _text(loading.read(path)) == _text(meant)
    except (DvcException, TemperError, ValueError):
        same = False
    if not same:
        # The usual reason is a wrong key, which gets its own message; values that DVC cannot pass on are rarer.
        path.write_text(_text(meant), encoding="utf-8")
        refuse_wrong_params(path)
        raise TemperError(f"{', '.join(params)}: expected values that DVC can pass on unchanged, received others")
    refuse_wrong_params(path)


def _text(content: dict[str, Any]) -> str:
    """The contents as JSON, which is also valid YAML. It tells 1, 1.0 and true apart, which `==` does not."""
    return json.dumps(content, sort_keys=True, default=repr)


def _take(content: dict[str, Any], key: str) -> None:
    *sections, last = key.split(".")
    for section in sections:
        content = content.get(section, {})
        if not isinstance(content, dict):
            break
    if not isinstance(content, dict) or last not in content:
        raise TemperError(f"params.yaml: remove: expected a key that is there, received {key}")
    del content[last]


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inside = content.setdefault(section, {})
        if not isinstance(inside, dict):
            raise TemperError(f"params.yaml: {key}: {section} is no section")
        content = inside
    content[last] = copy.deepcopy(value)


def _leaves(params: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys and values of nested sections. Keys of a section that are not named keep their values."""
    seen: set[str] = set()
    for key, value in params.items():
        _refuse_wrong_key(key)
        if isinstance(value, dict):
            if not value:
                raise Refusal(422, f"{prefix}{key}: expected keys in the section, received none")
            inner: Iterator[tuple[str, Any]] = _leaves(value, f"{prefix}{key}.")
        else:
            inner = iter([(f"{prefix}{key}", value)])
        for full, leaf in inner:
            if full in seen:
                raise Refusal(422, f"{full}: expected each key once, received it twice")
            seen.add(full)
            yield full, leaf


def _refuse_wrong_key(key: object) -> None:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise _wrong("expected a key of params.yaml such as fine_tune.epochs", key)


def _wrong(expected: str, received: object) -> Refusal:
    return Refusal(422, f"{expected}, received {loading.short(repr(received))}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key stands twice")
    return content


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")
