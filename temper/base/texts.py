"""Writes small text files: JSON for programs, CSV for people and for DVC's plots. Equal values give equal bytes."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # the characters with which a formula in a spreadsheet begins


def write_json(path: Path, values: object) -> None:
    """Writes indented JSON with a newline at its end."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table; cells that a spreadsheet would take for formulas are escaped."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([harmless(cell) for cell in row] for row in rows)


def harmless(cell: object) -> object:
    """Puts an apostrophe before a text that a spreadsheet would take for a formula, as spreadsheets do themselves.

    Class names and paths come from whoever published the photos: `=cmd|...` must not run when a table is opened.
    """
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULAS) else cell
