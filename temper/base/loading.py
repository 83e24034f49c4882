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

Model = TypeVar("Model", bound=BaseModel)


def read(path: str | Path = PARAMS) -> dict[str, Any]:
    """The content of a params file, not validated.

    Raises:
        TemperError: the file is missing, is no YAML or no mapping of keys.
    """
    try:
        # YAML 1.2, as DVC reads it: `010` is ten, `1:30` is text, and a key that stands twice is an error.
        content = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TemperError(f"{path}: no such file; copy one of recipes/ to it") from None
    except (YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or a date of month 13
        raise TemperError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise TemperError(f"{path}: expected a mapping of keys, received {type(content).__name__}")
    return content


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
    hint = did_you_mean(key.rsplit(".", 1)[-1], known)
    return f"unknown key {key}: expected one of {', '.join(known)}{hint}"


def _explain(problem: ErrorDetails, content: dict[str, Any], settings: type[BaseModel], prefix: str) -> str:
    place = _keys_in_file(problem, content)
    key = prefix + ".".join(map(str, place))
    if problem["type"] == "extra_forbidden":
        return unknown_key(key, _known_keys(settings, place[:-1], content))
    if problem["type"] == "missing":
        return f"missing key {key}: add it; docs/params.md says what it takes"
    if problem["type"] == "value_error":  # of a whole section: its message says what was received
        message = problem["msg"].replace("Value error, ", "")
        named = key.rstrip(".")
        return message if message.startswith(f"{named}.") or not named else f"{named}: {message}"
    options = re.findall(r"'([^']+)'", problem["msg"]) if problem["type"] == "literal_error" else []
    hint = did_you_mean(str(problem["input"]), options)
    return f"{key}: {problem['msg']}, received {problem['input']!r}{hint}"


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
