"""fetch: the chosen source -> data/raw/part-*.parquet (the raw table) and data/raw/source.json.

With the argument `auxiliary`, the stage of that name: the auxiliary source -> data/auxiliary, in the same form.

Every published image becomes one row, in the source's order, its bytes untouched. Each is decoded once, to learn its
size, its perceptual hash, or why it cannot be used; a large JPEG at a reduced size, which is enough for that.
"""

import hashlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from stages.fetch.bundles import forget_unpacked
from stages.fetch.source import Photo, Source
from temper import running
from temper.atomic import atomic_folder
from temper.errors import TemperError
from temper.parallel import ordered_map
from temper.params import Params
from temper.photos import HASHED, BadPhoto, decode_with_dimensions, perceptual_hash
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
        pixels, (height, width) = decode_with_dimensions(photo.data, HASHED)
    except BadPhoto as reason:
        return row | {"width": None, "height": None, "phash": None, "problem": photo.problem or str(reason)}
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
    if images != source.total:
        raise TemperError(f"expected {source.total} images of {source.facts['source']}, received {images}; report this")
    facts = {**source.facts, "images": images}
    (folder / "source.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return images, problems


def open_chosen(params: Params, role: str) -> Source:
    """The source of a role: `fetch` for the photos to learn, `auxiliary` for those that only join train."""
    if role == "auxiliary":
        name, local, settings = params.auxiliary.source, params.auxiliary.local, params.auxiliary.of_source()
    else:
        name, local, settings = params.source, params.sources.local, getattr(params.sources, params.source)
    module = importlib.import_module(f"stages.fetch.{name}")
    source: Source = module.open_source(settings, Path(local))
    return source


def fetch(params: Params, role: str) -> tuple[int, int]:
    """Writes the raw table of a role; returns the number of images and of those with a problem."""
    source = open_chosen(params, role)
    with atomic_folder("data/auxiliary" if role == "auxiliary" else "data/raw") as folder:
        images, problems = write_raw(folder, source)
        if not images and source.facts["source"] != "none":
            raise TemperError(f"expected images, found none: {dict(source.facts)}")
    return images, problems


def main(params: Params) -> None:
    # A photo that does not decode is reported by its row, not by OpenCV on stderr.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    role = sys.argv[1] if len(sys.argv) > 1 else "fetch"
    try:
        images, problems = fetch(params, role)
    except TemperError as error:
        if role != "auxiliary":
            raise
        # A source names its keys as of the first one.
        named = str(error).replace(f"sources.{params.auxiliary.source}", "auxiliary.settings")
        raise TemperError(f"auxiliary: {named.replace('sources.local', 'auxiliary.local')}") from None
    forget_unpacked()
    chosen = params.auxiliary.source if role == "auxiliary" else params.source
    print(f"fetched {images} images from {chosen}; {problems} cannot be used")


if __name__ == "__main__":
    running.run(main)
