"""Small files of text: what is written is read back, and runs nothing where a spreadsheet opens it."""

import csv
import json
from pathlib import Path

import pytest

from temper.base.texts import write_csv, write_json


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1", "'+1"),
        ("-rose", "'-rose"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("rose", "rose"),
        ("a=b", "a=b"),
        (-0.5, "-0.5"),
        ("", ""),
        ('say "hi", then', 'say "hi", then'),
    ],
)
def test_a_cell_is_no_formula(tmp_path: Path, cell: object, written: str) -> None:
    write_csv(tmp_path / "t.csv", ["a", "b"], [(cell, 1)])
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["a", "b"], [written, "1"]]


def test_json_ends_with_a_line_and_keeps_unicode(tmp_path: Path) -> None:
    write_json(tmp_path / "t.json", {"name": "crème 猫"})
    text = (tmp_path / "t.json").read_text(encoding="utf-8")
    assert text.endswith("}\n") and "crème 猫" in text and json.loads(text) == {"name": "crème 猫"}
