"""fetch: one named source -> data/raw/NAME/part-*.parquet (its raw table) and data/raw/NAME/source.json.

    python -m stages.fetch NAME

Every published image becomes one row, in the source's order, its bytes untouched. Each is decoded once, to learn its
size, its perceptual hash, or why it cannot be used.
"""

import hashlib
import importlib
import sys
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from stages.fetch.reading.bundles import forget_unpacked
from stages.fetch.source import Photo, Source
from temper import raw
from temper.base import running
from temper.base.atomic import atomic_folder
from temper.base.errors import TemperError
from temper.base.loading import PARAMS, validate
from temper.base.texts import write_json
from temper.parallel import ordered_map
from temper.photos import BadPhoto, decode, perceptual_hash
from temper.raw import RawWriter
from temper.settings.fetch import Settings


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
    if images != source.total:
        raise TemperError(f"expected {source.total} images of {source.facts['source']}, received {images}; report this")
    facts = {**source.facts, "images": images}
    write_json(folder / "source.json", facts)
    return images, problems


def open_named(settings: Settings, name: str) -> Source:
    """The source that `fetch.NAME` describes.

    Raises:
        TemperError: what it needs is missing.
    """
    entry = settings.fetch[name]
    module = importlib.import_module(f"stages.fetch.sources.{entry['source']}")
    source: Source = module.open_source(validate(module.Settings, entry, PARAMS, f"fetch.{name}."))
    return source


def fetch(settings: Settings, name: str) -> tuple[int, int]:
    """Writes the raw table of a named source; returns the number of images and of those with a problem."""
    source = open_named(settings, name)
    with atomic_folder(Path(raw.FOLDER) / name) as folder:
        images, problems = write_raw(folder, source)
        if not images:
            raise TemperError(f"expected images, found none: {dict(source.facts)}")
    return images, problems


def main(settings: Settings) -> None:
    # A photo that does not decode is reported by its row, not by OpenCV on stderr.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in settings.fetch:
        raise TemperError(f"expected a name of `fetch` in {PARAMS} ({', '.join(settings.fetch)}), received {name!r}")
    try:
        images, problems = fetch(settings, name)
    except TemperError as error:
        raise TemperError(f"fetch.{name}: {error}") from None
    forget_unpacked()
    print(f"fetched {images} images from {name} ({settings.fetch[name]['source']}); {problems} cannot be used")


if __name__ == "__main__":
    running.run(main, Settings)
