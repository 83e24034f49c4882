"""Toy outputs of the stages of a finished experiment."""

import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

PARAMS: dict[str, Any] = {
    "fetch": {"my photos": {"source": "folder", "path": "photos"}},
    "lr": 0.0003,
    "fine_tune": {"epochs": 3},
}
METRICS: dict[str, dict[str, Any]] = {
    "normalize": {"images": 120},
    "pack": {"packed": 120},
    "warm_up": {"warm_up_epoch": 2},
    "fine_tune": {"fine_tune_epoch": 3},
    "evaluate": {"accuracy": 0.9, "validation": {"accuracy": 0.95}},
}
LOSSES = (0.9, 0.5, 0.4)
CARD = {
    "classes": ["ant", "bee"],
    "preparation": {"height": 16, "width": 16, "fit": "stretch", "crop": None},
    "backbone": {"name": "tiny", "arguments": {}, "weights": "none", "sha256": None},
}


def write_experiment(folder: Path, params: dict[str, Any] | None = None) -> Path:
    """Writes params.yaml, metrics, curves, two pictures and a model with its card into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS if params is None else params), encoding="utf-8")
    for stage, figures in METRICS.items():
        write(folder / f"metrics/{stage}/metrics.json", json.dumps(figures))
    rows = [f"{epoch}\t{loss}" for epoch, loss in enumerate(LOSSES, 1)]
    table = "\n".join(["step\tloss", *rows, ""])
    write(folder / "metrics/fine_tune/plots/metrics/validation/loss.tsv", table)
    write(folder / "metrics/overview/summary.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>")
    write(folder / "metrics/gallery/classes.png", "")
    cv2.imwrite(str(folder / "metrics/gallery/classes.png"), np.zeros((8, 8, 3), np.uint8))
    (folder / "models").mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "models/fine_tune.keras", "w") as model:
        model.writestr("card.json", json.dumps(CARD))
        model.writestr("weights", b"0" * 100_000)
    return folder


def write(path: Path, text: str) -> None:
    """Writes a text to a file, and creates the file's folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
