"""Reads and validates params.yaml, and reports what is wrong with it in one line."""

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
MOST = 1_000_000  # the most characters of a params file, with each alias counted as the text that it stands for
_LARGEST = 2**1024  # larger than any float; Python refuses to print much larger numbers
_SHOWN = 200  # the most characters of a key or a value in a message

Model = TypeVar("Model", bound=BaseModel)


def read(path: str | Path = PARAMS) -> dict[str, Any]:
    """The content of a params file, not validated.

    Raises:
        TemperError: the file is missing, too large, not YAML, or not a mapping of keys.
    """
    try:
        # YAML 1.2, as DVC reads it: `010` is ten, `1:30` is text, and a duplicate key is an error.
        text = Path(path).read_text(encoding="utf-8")
        content = YAML(typ="safe", pure=True).load(text) if len(text) <= MOST else None
    except FileNotFoundError:
        raise TemperError(f"{path}: no such file; copy one of recipes/ to it") from None
    except RecursionError:
        raise TemperError(f"{path}: not valid YAML: lists or mappings are nested too deeply") from None
    except (YAMLError, ValueError, TypeError) as error:  # such as bytes that are not UTF-8, month 13, a list as a key
        raise TemperError(f"{path}: not valid YAML: {short(str(error), 2 * _SHOWN)}") from None
    if len(text) > MOST or not _is_small(content):
        raise TemperError(
            f"{path}: expected at most {MOST:,} characters, with aliases such as *name written out, and numbers below "
            "2**1024, received more"
        )
    if not isinstance(content, dict):
        raise TemperError(f"{path}: expected a mapping of keys, received {type(content).__name__}")
    return content


def _is_small(content: Any) -> bool:
    """Whether a document is small when all its aliases are written out.

    A dozen lines of aliases of aliases can stand for more values than there are atoms.
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
    """A text, cut if it is too long for a line on a terminal."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def load(settings: type[Model], path: str | Path = PARAMS) -> Model:
    """Reads the settings of a stage from a params file.

    Raises:
        TemperError: the file cannot be read or does not satisfy the settings; the message names the key.
    """
    return validate(settings, read(path), str(path))


def validate(settings: type[Model], content: dict[str, Any], path: str, prefix: str = "") -> Model:
    """Validates a section of params.

    Args:
        path: the file, for messages.
        prefix: the key of the section followed by a dot, such as "fetch.photos.".

    Raises:
        TemperError: the section is wrong. The message has the first problem: the full key, what was expected and what
            was received.
    """
    try:
        return settings.model_validate(content)
    except ValidationError as error:
        # A misspelt key is unknown and also makes the right one missing. The message about the unknown key helps more.
        problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise TemperError(f"{path}: {_explain(problems[0], content, settings, prefix)}{more}") from None


def did_you_mean(word: str, known: list[str]) -> str:
    """The end of a message that suggests the known word closest to `word`, ignoring case; empty if none is close."""
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
    if problem["type"] == "value_error":  # from our own validators, whose messages already say what was received
        message = problem["msg"].replace("Value error, ", "")
        named = key.rstrip(".")
        return message if message.startswith(f"{named}.") or not named else f"{named}: {message}"
    options = re.findall(r"'([^']+)'", problem["msg"]) if problem["type"] == "literal_error" else []
    hint = did_you_mean(short(str(problem["input"])), options)
    return f"{key}: {problem['msg']}, received {short(repr(problem['input']))}{hint}"


def _keys_in_file(problem: ErrorDetails, content: Any) -> list[int | str]:
    """Pydantic's location of a problem, without the names of chosen variants, which are not keys of the file."""
    keys: list[int | str] = []
    for key in problem["loc"]:
        is_variant = isinstance(content, dict) and key not in content
        if is_variant and not (problem["type"] == "missing" and key == problem["loc"][-1]):
            continue
        keys.append(key)
        content = content.get(key) if isinstance(content, dict) else None
    return keys


def _known_keys(settings: type[BaseModel], place: list[int | str], content: Any) -> list[str]:
    """The keys of the section at `place`; if it has variants, only those of the variant that the file chooses."""
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
    """Whether a variant has the `name` that the file gives."""
    name = section.model_fields.get("name")
    return (
        name is None or not isinstance(content, dict) or content.get("name") in getattr(name.annotation, "__args__", ())
    )


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The section classes that a field of this type may contain."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [section for part in getattr(annotation, "__args__", ()) for section in sections_in(part)]
