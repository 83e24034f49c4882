"""params.yaml, read in one place, and what is wrong with it in one line."""

import difflib
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from temper.base.errors import TemperError

PARAMS = "params.yaml"
MOST = 1_000_000  # characters of a params file, also when what an alias stands for is counted each time
_LARGEST = 2**1024  # more than any float; Python refuses to print much larger numbers
_SHOWN = 200  # characters of a key or a value in a message

Model = TypeVar("Model", bound=BaseModel)


def read(path: str | Path = PARAMS) -> dict[str, Any]:
    """The content of a params file, not validated.

    Raises:
        TemperError: the file is missing, is no YAML or no mapping of keys.
    """
    try:
        # YAML 1.2, as DVC reads it: `010` is ten, `1:30` is text, and a key that stands twice is an error.
        text = Path(path).read_text(encoding="utf-8")
        content = YAML(typ="safe", pure=True).load(text) if len(text) <= MOST else None
    except FileNotFoundError:
        raise TemperError(f"{path}: no such file; copy one of recipes/ to it") from None
    except RecursionError:
        raise TemperError(f"{path}: not valid YAML: lists or mappings within each other, deeper than is read") from None
    except (YAMLError, ValueError, TypeError) as error:  # no UTF-8, a date of month 13; a list for a key
        raise TemperError(f"{path}: not valid YAML: {short(str(error), 2 * _SHOWN)}") from None
    if len(text) > MOST or not _is_small(content):
        raise TemperError(
            f"{path}: expected at most {MOST:,} characters, aliases (*name) written out, and numbers below 2**1024; "
            "received more"
        )
    if not isinstance(content, dict):
        raise TemperError(f"{path}: expected a mapping of keys, received {type(content).__name__}")
    return content


def _is_small(content: Any) -> bool:
    """Whether a document stays small where it is printed, in which an alias counts as often as it is used.

    A dozen lines of aliases of aliases stand for more values than there are atoms.
    """
    waiting, left = [content], MOST
    while waiting and left >= 0:
        value = waiting.pop()
        left -= len(value) if isinstance(value, str | bytes) else 1
        if isinstance(value, int) and abs(value) >= _LARGEST:
            return False
        if isinstance(value, dict):
            waiting += value.keys()
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
    return left >= 0


def short(text: str, most: int = _SHOWN) -> str:
    """A text, cut where it is too long for a line on a terminal."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def load(settings: type[Model], path: str | Path = PARAMS) -> Model:
    """The settings of a stage, from the whole params file.

    Raises:
        TemperError: the file cannot be read or does not satisfy the settings; the message names the key.
    """
    return validate(settings, read(path), str(path))


def validate(settings: type[Model], content: dict[str, Any], path: str, prefix: str = "") -> Model:
    """A section of params, validated.

    Args:
        path: the file, for messages.
        prefix: the key of the section with a dot at its end, such as "fetch.photos.".

    Raises:
        TemperError: with the first problem, the key's full name, what was expected and what was received.
    """
    try:
        return settings.model_validate(content)
    except ValidationError as error:
        # A misspelt key is unknown and makes another one missing: its own line helps more.
        problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise TemperError(f"{path}: {_explain(problems[0], content, settings, prefix)}{more}") from None


def did_you_mean(word: str, known: list[str]) -> str:
    """The end of a message that proposes the known word closest to `word`, whatever its case; empty if none is."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, 1)
    return f"; did you mean {by_lower[close[0]]}?" if close else ""


def unknown_key(key: str, known: list[str]) -> str:
    """The message for a key that is not among the known ones."""
    hint = did_you_mean(short(key.rsplit(".", 1)[-1]), known)
    return f"unknown key {short(key)}: expected one of {', '.join(known)}{hint}"


def _explain(problem: ErrorDetails, content: dict[str, Any], settings: type[BaseModel], prefix: str) -> str:
    place = _keys_in_file(problem, content)
    key = short(prefix + ".".join(map(str, place)))
    if problem["type"] == "extra_forbidden":
        return unknown_key(key, _known_keys(settings, place[:-1], content))
    if problem["type"] == "missing":
        return f"missing key {key}: add it; docs/params.md says what it takes"
    if problem["type"] == "value_error":  # of a whole section: its message says what was received
        message = problem["msg"].replace("Value error, ", "")
        named = key.rstrip(".")
        return message if message.startswith(f"{named}.") or not named else f"{named}: {message}"
    options = re.findall(r"'([^']+)'", problem["msg"]) if problem["type"] == "literal_error" else []
    hint = did_you_mean(short(str(problem["input"])), options)
    return f"{key}: {problem['msg']}, received {short(repr(problem['input']))}{hint}"


def _keys_in_file(problem: ErrorDetails, content: Any) -> list[int | str]:
    """Pydantic's location of a problem without the names of chosen variants, which are no keys of the file."""
    keys: list[int | str] = []
    for key in problem["loc"]:
        is_variant = isinstance(content, dict) and key not in content
        if is_variant and not (problem["type"] == "missing" and key == problem["loc"][-1]):
            continue
        keys.append(key)
        content = content.get(key) if isinstance(content, dict) else None
    return keys


def _known_keys(settings: type[BaseModel], place: list[int | str], content: Any) -> list[str]:
    """The keys of the section at `place`: of its variants, those of the one that the file chooses."""
    sections: list[type[BaseModel]] = [settings]
    for key in place:
        content = content.get(key) if isinstance(content, dict) else None
        sections = [
            section
            for parent in sections
            if key in parent.model_fields
            for section in sections_in(parent.model_fields[str(key)].annotation)
        ]
    chosen = [section for section in sections if _is_chosen(section, content)]
    return sorted({name for section in chosen or sections for name in section.model_fields})


def _is_chosen(section: type[BaseModel], content: Any) -> bool:
    """Whether a variant is the one whose `name` the file gives."""
    name = section.model_fields.get("name")
    return (
        name is None or not isinstance(content, dict) or content.get("name") in getattr(name.annotation, "__args__", ())
    )


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a field of this type may hold."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [section for part in getattr(annotation, "__args__", ()) for section in sections_in(part)]
