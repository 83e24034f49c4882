"""What is posted: read strictly, spread out if it is a grid, and checked by the schema before anything is queued.

A run is checked as the very file that it will have: DVC's own function writes the values into a copy of params.yaml,
which is then compared with what was meant, and validated.
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

MOST_BYTES = 100_000  # of a request
MOST_RUNS = 200  # of a grid
_KEY = re.compile(r"[A-Za-z_][\w-]*(\.\w[\w-]*)*", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")  # no option of a program, no path, a name for git
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_KNOWN = {"params": dict, "remove": list, "name": str, "grid": bool, "id": str}
_hydra = threading.Lock()  # its parsers say nothing of threads


@dataclass(frozen=True)
class Wish:
    """A request for a run or a grid.

    Attributes:
        params: dotted keys and what they are set to; in a grid, a list is the values to try.
        remove: dotted keys that the run does not have.
        name: of the run, or before the numbers of a grid's.
        id: the client's, by which a repeated request is known.
    """

    params: dict[str, Any]
    remove: tuple[str, ...]
    name: str
    grid: bool
    id: str

    @property
    def digest(self) -> str:
        """What tells two requests of one id apart."""
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
        Refusal: 400 if it is no JSON, 422 if it asks for something else than a run or a grid.
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
    """The runs of a request, each with its values: one, or all combinations of a grid, the last key varying fastest.

    Raises:
        Refusal: the grid is none, or too large.
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
    """What `dvc exp run -S` takes: each value as JSON, which is one value to DVC, never a sweep."""
    values = [f"++{key}={json.dumps(value, ensure_ascii=False)}" for key, value in params.items()]
    return (*(f"~{key}" for key in remove), *values)


def checked(wish: Wish, base: str) -> list[Run]:
    """The runs of a request, each of which the schema accepts.

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
        # A wrong key is what people need to hear of; what DVC cannot carry is the rarer reason.
        path.write_text(_text(meant), encoding="utf-8")
        refuse_wrong_params(path)
        raise TemperError(f"{', '.join(params)}: expected values that DVC can pass on unchanged, received others")
    refuse_wrong_params(path)


def _text(content: dict[str, Any]) -> str:
    """Equal for equal content, where 1, 1.0 and true are three things; JSON is YAML too."""
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
    """The dotted keys of nested sections. What is not named in a section stays as it is."""
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
