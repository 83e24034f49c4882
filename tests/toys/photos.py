"""Photos that a small network can tell apart, made in memory."""

from pathlib import Path

import cv2
import numpy as np


def toy_photo(label: int, number: int, side: int = 24, ending: str = ".png") -> bytes:
    """A photo that a small network can tell from those of other labels: a square in a corner, in a colour."""
    random = np.random.default_rng([label, number])
    pixels = random.integers(0, 120, (side, side, 3), np.uint8)
    top, left = [(0, 0), (0, side // 2), (side // 2, 0)][label % 3]
    channels = slice(None) if label < 3 else slice(label % 2, label % 2 + 2)
    pixels[top : top + side // 2, left : left + side // 2, channels] += 100
    return bytes(cv2.imencode(ending, pixels)[1])


def write_toy_photos(folder: Path, per_class: int = 40, first: int = 0) -> Path:
    """Writes three class folders of toy photos, numbered from `first`; photos with different numbers differ."""
    for label, name in enumerate(("ant", "bee", "cat")):
        (folder / name).mkdir(parents=True)
        for number in range(first, first + per_class):
            (folder / name / f"{number:03}.png").write_bytes(toy_photo(label, number))
    return folder
