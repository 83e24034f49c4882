"""Whatever params.yaml holds: settings, or one line that says what is wrong; never a traceback, never a hang.

FUZZ_EXAMPLES=5000 python -m pytest -n0 tests/test_fuzz_params.py    # for longer
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from temper.base import loading
from temper.base.errors import TemperError
from temper.settings import check
from tests.toys import fuzzing
from tests.toys.bounds import bounded
from tests.toys.workspace import ROOT

RECIPES = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "recipes").glob("*.yaml"))]
DIGITS: dict[str, Any] = yaml.safe_load((ROOT / "recipes/digits.yaml").read_text(encoding="utf-8"))
LONGEST_LINE = 1000
HERE = "HERE"  # where an odd value is put into a document

LAUGHS = "[&a0 [ha], " + ", ".join(f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)) + "]"
DOUBLED = ", ".join(f"k{n}: &m{n} {{a: *m{n - 1}, b: *m{n - 1}}}" for n in range(1, 40))
ODD = [
    *(".nan", ".inf", "-.inf", "-0.0", "0", "-1", "1e400", "1e-400", "5e-324", "3e-06", "1_000", "0o17", "017"),
    *("0x1F", "9" * 30, "9" * 5000, "0x" + "f" * 20_000, "1:30", "2026-01-31", "2026-13-45", "2026-01-31T10:00:00Z"),
    *("=", "<<", "~", "null", "true", "yes", "none", "''", "' '", "'\\0'", '"\\0"', '"\\ud800"', "'é\u0301\u202e'"),
    *("'\U0001f4a9'", "[]", "{}", "[[]]", "[~]", "{~: ~}", "{[a]: b}", "{1: a}", "{a: 1, a: 2}", "{name: x, name: y}"),
    *("? a", "{? [a]}", "[" * 500 + "]" * 500, "[" * 600, "{a: " * 300 + "1" + "}" * 300, "&a [*a]", "&a {a: *a}"),
    *("*nobody", "&a", "{<<: {lr: 1}}", "{<<: [{a: 1}, {b: 2}]}", "{<<: 1}", "&x {<<: *x}", "!!set {a, b}"),
    *("!!omap [a: 1]", "!!binary aGk=", "!!python/object/apply:os.system [exit]", "!!int x", "!!float a", "!unknown x"),
    *("!!timestamp x", "!!str 3", "!<!>", "%", "@", "`", "|", ">", "- a", "a: b", "# x", '"', "'", "\t", "...", "---"),
    *("x" * 100_000, "x " * 600_000, LAUGHS, f"{{k: &m0 {{a: 1}}, {DOUBLED}}}"),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.integers(10**18, 10**40),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
    max_leaves=6,
).map(json.dumps)


def key_paths(section: type[BaseModel], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key that a section may have, and those of the sections in it."""
    for name, field in section.model_fields.items():
        yield (*before, name)
        waiting: list[Any] = [field.annotation]
        while waiting:
            kind = waiting.pop()
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from key_paths(kind, (*before, name))
            else:
                waiting.extend(get_args(kind))


KEYS = sorted({key for section in check.stage_settings().values() for key in key_paths(section)})
KEYS += [("fetch", "digits"), ("fetch", "digits", "source"), ("fetch", "digits", "path"), ("detect", "detector")]
KEYS += [("fetch", "more"), ("strange",), (HERE,), ("fetch", HERE), ("warm_up", HERE)]


def with_odd_value(key: tuple[str, ...], odd: str) -> str:
    """The recipe of the digits with an odd value, or an odd name, at a key."""
    content = json.loads(json.dumps(DIGITS))
    inside = content
    for name in key[:-1]:
        inside = inside.setdefault(name, {})
    inside[key[-1]] = HERE
    return yaml.safe_dump(content, default_flow_style=True, width=10**6).replace(HERE, odd, 1)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A recipe with pieces taken out, put elsewhere or replaced."""
    text = draw(st.sampled_from(RECIPES))
    for _ in range(draw(st.integers(1, 4))):
        start, length, place = (draw(st.integers(0, len(text))) for _ in range(3))
        piece = text[start : start + length % 40]
        new = draw(
            st.sampled_from(["", piece, piece * 2, "\n", "  ", ": ", "- ", "*", "&a ", "{", "]", "\t", "\0", "!"])
        )
        text = text[:start] + text[start + length % 40 :] if draw(st.booleans()) else text[:place] + new + text[place:]
    return text


def check_params(folder: Path, document: str | bytes) -> None:
    """Settings for every stage, or one line."""
    path = folder / "params.yaml"
    path.write_bytes(document if isinstance(document, bytes) else document.encode("utf-8", "surrogatepass"))
    with bounded(seconds=5, mebibytes=1000):
        try:
            check.refuse_wrong_params(path)
        except TemperError as refused:
            line = str(refused)
            assert line and "\n" not in line and line.isprintable() and len(line) <= LONGEST_LINE, line[:2000]
            return
        for section in check.stage_settings().values():
            loading.load(section, path)


@pytest.fixture(autouse=True, scope="module")
def no_backbone_is_built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """It takes seconds, and has tests of its own. Also gives a folder."""
    folder = tmp_path_factory.mktemp("params")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "_build_backbone", lambda path: '[["conv", true]]')
        patch.chdir(folder)
        yield folder


same_every_time = fuzzing.same_every_time(60)


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_an_odd_value(no_backbone_is_built: Path, odd: str) -> None:
    """As the whole document, and at a few keys of each kind."""
    check_params(no_backbone_is_built, odd)
    for key in [("lr",), ("fetch", HERE)]:
        check_params(no_backbone_is_built, with_odd_value(key, odd))


@same_every_time
@given(key=st.sampled_from(KEYS), odd=st.sampled_from(ODD) | VALUES)
def test_an_odd_value_at_any_key(no_backbone_is_built: Path, key: tuple[str, ...], odd: str) -> None:
    check_params(no_backbone_is_built, with_odd_value(key, odd))


@same_every_time
@given(document=mutated() | st.text() | st.binary())
def test_a_mutated_document(no_backbone_is_built: Path, document: str | bytes) -> None:
    check_params(no_backbone_is_built, document)
