"""Writes params.schema.json, for editors, and docs/params.md, for readers, from the settings themselves.

    python -m temper.settings.reference

A test compares the two files with the code. No stage depends on this module.
"""

import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from temper.base.loading import sections_in
from temper.settings.check import DETECTORS, ROOT, SOURCES, settings_in, stage_settings

SCHEMA, PAGE = ROOT / "params.schema.json", ROOT / "docs" / "params.md"
# The order of the recipes; keys that are not listed here come after these.
TOP = ("fetch", "image_size", "batch_size", "lr", "aug", "seed", "cross_validate")
TOP_SECTIONS = ("normalize", "detect", "pack", "backbone", "embed", "warm_up", "fine_tune", "evaluate", "export")
INTRODUCTION = """# params.yaml: every key

`params.yaml` describes the current experiment. It holds only what you choose; a key that it does not have takes the
default given here. Top-level keys and sections, have no default, except `trackers`, so every recipe has all of them.

The whole file is checked before any work. A misspelt key, a value out of range, or a setting that the chosen option
does not use (such as `momentum` with `adam`) stops the run with one line that names it.

To change a key, edit the file, or try a value with `dvc exp run -S lr=3e-6`. If the file does not have the key yet, put
a plus before it: `dvc exp run -S +pack.margin=0.2`.

Editors that know JSON Schema check and complete the file with `params.schema.json`. For the YAML extension of VS Code,
make this the first line of `params.yaml`: `# yaml-language-server: $schema=params.schema.json`.

This page is written by `python -m temper.settings.reference`; do not edit it by hand.
"""


def top_level() -> dict[str, FieldInfo]:
    """Each top-level key, with the description of the first stage that gives one."""
    fields: dict[str, FieldInfo] = {}
    for settings in stage_settings().values():
        for name, field in settings.model_fields.items():
            if name not in fields or (field.description and not fields[name].description):
                fields[name] = field
    first = [*TOP, *TOP_SECTIONS]
    order = [*first, *(name for name in fields if name not in first)]
    return {name: fields[name] for name in order}


def families() -> dict[str, tuple[str, dict[str, type[BaseModel]]]]:
    """The keys whose settings depend on a choice: for each, the key that chooses and the settings of each choice."""
    return {"fetch": ("source", settings_in(SOURCES)), "detect": ("detector", settings_in(DETECTORS))}


def schema() -> dict[str, Any]:
    """The JSON Schema of params.yaml."""
    definitions: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    for name, field in top_level().items():
        properties[name] = _schema_of(field.rebuild_annotation(), definitions) | {"description": field.description}
    for key, (chooser, choices) in families().items():
        any_of = [_schema_of(choice, definitions) for choice in choices.values()]
        chosen = {"oneOf": any_of, "required": [chooser]}
        properties[key].pop("additionalProperties", None)
        if key == "fetch":  # a mapping from names that the user chooses to such choices
            (name,) = properties[key]["patternProperties"]
            properties[key] |= {"patternProperties": {name: chosen}, "additionalProperties": False}
        else:
            properties[key] |= chosen
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "params.yaml of Temper",
        "type": "object",
        "properties": properties,
        "required": [name for name, field in top_level().items() if field.is_required()],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _schema_of(annotation: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of one type; the types that it refers to are added to `definitions`."""
    found = TypeAdapter(annotation).json_schema(ref_template="#/$defs/{model}")
    definitions |= found.pop("$defs", {})
    return found


def page() -> str:
    """The text of docs/params.md."""
    lines = [INTRODUCTION]
    for name, field in top_level().items():
        lines += ["", f"## `{name}`", "", f"{_sentence(field.description)}"]
        if name in families():
            chooser, choices = families()[name]
            for choice, settings in choices.items():
                place = f"{name}.NAME" if name == "fetch" else name
                lines += ["", f"### `{chooser}: {choice}`", "", _sentence(_summary(settings))]
                rows = list(_rows(settings, place))
                lines += ["", *_table(rows)] if rows else []
            continue
        sections = sections_in(field.annotation)
        if sections:
            lines += ["", *_table(row for section in sections for row in _rows(section, name))]
        else:
            lines += ["", f"Takes {_kind(field.rebuild_annotation())}."]
    return "\n".join(lines) + "\n"


Row = tuple[str, str, str, str]  # key, what it takes, default, meaning


def _rows(section: type[BaseModel], place: str, is_variant: bool = False) -> Iterator[Row]:
    """A row for each key of a section and of the sections in it; for a variant, without the key `name`."""
    for key, field in section.model_fields.items():
        full = f"{place}.{key}"
        inside = sections_in(field.annotation)
        variants = [one for one in inside if "name" in one.model_fields]
        default = "required" if field.is_required() else f"`{_yaml(field.default)}`"
        if variants:
            names = ", ".join(f"`{_name_of(one)}`" for one in variants)
            yield full, f"`name:` one of {names}", default, field.description or ""
            yield from _rows_of_variants(variants, full)
        elif inside:
            yield full, "a mapping", default if default == "required" else "", field.description or ""
            for one in inside:
                yield from _rows(one, full)
        elif key not in ("source", "detector") and not (is_variant and key == "name"):
            yield full, _kind(field.rebuild_annotation()), default, field.description or ""


def _rows_of_variants(variants: list[type[BaseModel]], place: str) -> Iterator[Row]:
    """A row for each key of a section's variants, with the names of the variants that have it."""
    names: dict[Row, list[str]] = {}
    for one in variants:
        for row in _rows(one, place, is_variant=True):
            names.setdefault(row, []).append(f"`{_name_of(one)}`")
    for (key, kind, default, meaning), having in names.items():
        who = "any" if len(having) == len(variants) else ", ".join(having)
        yield key, f"{kind} (with {who})", default, meaning


def _table(rows: Any) -> list[str]:
    cells = ["| key | takes | default | meaning |", "|---|---|---|---|"]
    return cells + [f"| `{key}` | {kind} | {default} | {meaning} |" for key, kind, default, meaning in rows]


def _name_of(section: type[BaseModel]) -> str:
    return str(typing.get_args(section.model_fields["name"].annotation)[0])


def _kind(annotation: Any) -> str:
    """Which values a type accepts, in words."""
    return _words(TypeAdapter(annotation).json_schema()).replace("|", "\\|")


def _words(schema: dict[str, Any]) -> str:
    if any("prefixItems" in one for one in schema.get("anyOf", ())):
        rest = [one for one in schema["anyOf"] if one.get("type") == "null"]
        return " or ".join(["N or [height, width], 8 to 4096 pixels", *map(_words, rest)])
    if "anyOf" in schema:
        return " or ".join(map(_words, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        values = [f"`{value}`" for value in schema.get("enum", [schema.get("const")])]
        return f"one of {', '.join(values)}" if len(values) > 2 else " or ".join(values)
    if schema.get("type") == "array":
        return f"a list; each {_words(schema.get('items', {}))}"
    names = {"integer": "an integer", "number": "a number", "string": "text", "boolean": "true or false"}
    names |= {"null": "null", "object": "a mapping"}
    return names.get(schema.get("type", ""), "any value") + _range(schema)


def _range(schema: dict[str, Any]) -> str:
    """The limits of a number, or the pattern of a text, in words."""
    if schema.get("pattern") == "^[0-9a-f]{64}$":
        return " of 64 hex digits"
    limits = [
        f"{words} {schema[key]:,}"
        for key, words in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        if key in schema
    ]
    return f", {' and '.join(limits)}" if limits else ""


def _yaml(value: Any) -> str:
    """A default value as it would be written in params.yaml."""
    if isinstance(value, BaseModel):
        name = {"name": value.name} if hasattr(value, "name") else {}
        value = name | value.model_dump(exclude_defaults=True)
    if isinstance(value, tuple):
        value = value[0] if len(set(value)) == 1 else list(value)
    if value is None:
        return "null"
    return json.dumps(value) if isinstance(value, bool | list | dict) else str(value)


def _sentence(text: str | None) -> str:
    text = (text or "").strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _summary(section: type[BaseModel]) -> str:
    lines = (section.__doc__ or "").strip().splitlines()
    return re.sub(r"^`[^`]*`:? ", "", lines[0]) if lines else ""


def texts() -> dict[Path, str]:
    """What the two files should contain, by path."""
    return {SCHEMA: json.dumps(schema(), indent=2, ensure_ascii=False) + "\n", PAGE: page()}


def main() -> None:
    """Writes both files."""
    for path, text in texts().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
