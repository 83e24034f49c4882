"""Small files of text: JSON for programs, CSV for people and for DVC's plots. Equal values give equal bytes."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path


def write_json(path: Path, values: object) -> None:
    """Writes indented JSON with a newline at its end."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table for people and for DVC's plots."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
