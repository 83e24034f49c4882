"""The surest mistakes on the test images, as a contact sheet."""

from pathlib import Path

import numpy as np

from temper import predictions, tables
from temper.packs import Pack
from temper.sheets import write_sheet

MOST = 40  # mistakes
CELL = 160  # pixels


def write(folder: Path) -> None:
    """Draws the wrong predictions into surest.png, the surest first; an empty folder where every image is right."""
    folder.mkdir()
    table = tables.read(predictions.PATH, predictions.PREDICTIONS)
    rows = [row for row in table.to_pylist() if row["split"] == "test"]
    test = Pack("data/packed/test")
    sure = np.array([max(row["probabilities"]) for row in rows])
    wrong = np.array([number for number, row in enumerate(rows) if row["predicted"] != row["class_name"]], np.intp)
    strips = [
        (f"{rows[n]['class_name']}, taken for {rows[n]['predicted']} ({sure[n]:.2f})", [test.image(n)])
        for n in wrong[np.argsort(-sure[wrong], kind="stable")][:MOST].tolist()
    ]
    write_sheet(folder / "surest.png", strips, per_strip=1, across=6, cell=CELL)
