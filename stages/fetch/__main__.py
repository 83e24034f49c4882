"""fetch: the chosen source -> data/raw/part-*.parquet (the raw table) and data/raw/source.json.

Every published image becomes one row, in the source's order, its bytes untouched. Each is decoded once, to learn its
size, its perceptual hash, or why it cannot be used.
"""

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from stages.fetch.source import Photo, Source
from temper import running
from temper.atomic import atomic_folder
from temper.errors import TemperError
from temper.parallel import ordered_map
from temper.params import Params
from temper.photos import BadPhoto, decode, perceptual_hash
from temper.tables import RawWriter


def describe(photo: Photo) -> dict[str, Any]:
    """The row of the raw table for one photo."""
    row: dict[str, Any] = {
        "path": photo.path,
        "label": photo.label,
        "split": photo.split,
        "image": photo.data,
        "sha256": hashlib.sha256(photo.data).hexdigest(),
        "coarse": photo.coarse,
        "licence": photo.licence,
        **dict(zip(("x1", "y1", "x2", "y2"), photo.box or (None,) * 4, strict=True)),
    }
    try:
        pixels = decode(photo.data)
    except BadPhoto as reason:
        return row | {"width": None, "height": None, "phash": None, "problem": photo.problem or str(reason)}
    height, width = pixels.shape[:2]
    return row | {"width": width, "height": height, "phash": perceptual_hash(pixels), "problem": None}


def write_raw(folder: Path, source: Source) -> tuple[int, int]:
    """Writes the raw table and source.json; returns the number of images and of those with a problem."""
    images = problems = 0
    with RawWriter(folder) as writer:
        rows = ordered_map(describe, source.photos)
        for row in tqdm(rows, "fetch", source.total, unit="image", disable=None):
            writer.append(row)
            images += 1
            problems += row["problem"] is not None
    facts = {**source.facts, "images": images}
    (folder / "source.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return images, problems


def main(params: Params) -> None:
    # A photo that does not decode is reported by its row, not by OpenCV on stderr.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    module = importlib.import_module(f"stages.fetch.{params.source}")
    source: Source = module.open_source(getattr(params.sources, params.source))
    with atomic_folder("data/raw") as folder:
        images, problems = write_raw(folder, source)
        if not images:
            raise TemperError(f"source {params.source}: expected images, found none: {dict(source.facts)}")
    print(f"fetched {images} images from {params.source}; {problems} cannot be used")


if __name__ == "__main__":
    running.run(main)
