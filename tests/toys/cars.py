"""Sixty real photos of Stanford Cars with the boxes of its devkit."""

from pathlib import Path

import scipy.io

FOLDER = "data/stanford_cars"  # of the real photos


def cars(shared: Path) -> list[tuple[bytes, tuple[float, ...]]]:
    """The photos and the devkit's boxes: x1, y1, x2, y2."""
    annotations = scipy.io.loadmat(shared / FOLDER / "devkit/cars_train_annos.mat")["annotations"][0]
    published = {
        str(row["fname"][0]): tuple(float(row[f"bbox_{side}"][0, 0]) for side in ("x1", "y1", "x2", "y2"))
        for row in annotations
    }
    return [
        (path.read_bytes(), published[path.name]) for path in sorted((shared / FOLDER / "cars_train").glob("*.jpg"))
    ]
