"""fetch: one named source -> data/raw/NAME/part-*.parquet (its raw table) and data/raw/NAME/source.json.

    python -m stages.fetch NAME

Every published image becomes one row, in the source's order, with its bytes unchanged. Each image is decoded once, to
find its size and perceptual hash, or the reason why it cannot be used (looks.py). Later fetches decode only images that
are new.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin()  # before anything heavy is imported

import hashlib
import importlib
import sys
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from stages.fetch import understood
from stages.fetch.looks import Looks, look
from stages.fetch.reading.bundles import forget_unpacked
from stages.fetch.source import Photo, Source
from stages.fetch.understood import Place
from temper import raw
from temper.base import running
from temper.base.atomic import atomic_folder
from temper.base.disk import require_room
from temper.base.errors import TemperError
from temper.base.loading import PARAMS, validate
from temper.base.paths import repository
from temper.base.texts import write_json
from temper.headers import memory_to_decode
from temper.parallel import ordered_map
from temper.raw import RawWriter
from temper.settings.fetch import Settings

PROBLEMS = 5  # how many kinds of problems are printed


def describe(photo: Photo, looks: Looks | None = None) -> dict[str, Any]:
    """The row of the raw table for one photo.

    Args:
        looks: the cache of what was found in photos of earlier fetches; `None` decodes the photo in any case.

    Raises:
        TemperError: its name cannot be used, or there is too little memory to decode it.
    """
    refuse_unusable_names(photo)
    sha256 = hashlib.sha256(photo.data).hexdigest()
    try:
        found = looks.at(photo.data, sha256) if looks else look(photo.data)
    except MemoryError as error:  # not a defect of the photo, which may be usable on a machine with more memory
        raise TemperError(f"{photo.path}: {error}") from None
    return {
        "path": photo.path,
        "label": photo.label,
        "split": photo.split,
        "image": photo.data,
        "sha256": sha256,
        "coarse": photo.coarse,
        "licence": photo.licence,
        **dict(zip(("x1", "y1", "x2", "y2"), photo.box or (None,) * 4, strict=True)),
        "width": found.width,
        "height": found.height,
        "phash": found.phash,
        "problem": (photo.problem or found.problem) if found.problem else None,
    }


def refuse_unusable_names(photo: Photo) -> None:
    """Refuses names that must not get into tables or onto terminals.

    Raises:
        TemperError: the path, label, split, coarse label or licence of a photo contains control characters, or bytes
            that are not valid text.
    """
    for key in ("path", "label", "split", "coarse", "licence"):
        value = getattr(photo, key)
        if value and any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
            raise TemperError(f"{photo.path!r}: expected a {key} of text in one line, received {value!r}; rename it")


@dataclass(frozen=True)
class Fetched:
    """What was fetched.

    Attributes:
        images: how many images the source has.
        found: how many usable images each (split, label) has, as published.
        problems: how many images cannot be used, by reason.
        decoded: how many images had to be decoded because no earlier fetch had seen them.
    """

    images: int
    found: Counter[Place]
    problems: Counter[str]
    decoded: int


def write_raw(folder: Path, source: Source, looks: Looks | None = None) -> Fetched:
    """Writes the raw table and source.json.

    Args:
        looks: the cache of what was found in photos of earlier fetches; `None` decodes all photos.
    """
    images = 0
    found: Counter[Place] = Counter()
    problems: Counter[str] = Counter()
    with RawWriter(folder) as writer:
        rows = ordered_map(
            lambda photo: describe(photo, looks), source.photos, weigh=lambda photo: memory_to_decode(photo.data)
        )
        for row in tqdm(rows, "fetch", source.total, unit="image", disable=None):
            writer.append(row)
            images += 1
            found[row["split"], row["label"]] += row["problem"] is None
            if row["problem"] is not None:
                problems[row["problem"]] += 1
    if images != source.total:
        raise TemperError(
            f"expected {source.total} images of {source.facts['source']}, received {images}; please report this defect"
        )
    write_json(folder / "source.json", {**source.facts, "images": images, **understood.facts(found)})
    return Fetched(images, found, problems, looks.decoded if looks else images)


def open_named(settings: Settings, name: str) -> Source:
    """Opens the source that `fetch.NAME` in params.yaml describes.

    Raises:
        TemperError: its settings are invalid, or its files, archive or credentials are missing or refused.
    """
    entry = settings.fetch[name]
    module = importlib.import_module(f"stages.fetch.sources.{entry['source']}")
    source: Source = module.open_source(validate(module.Settings, entry, PARAMS, f"fetch.{name}."))
    return source


def fetch(settings: Settings, name: str) -> Fetched:
    """Writes the raw table of a named source."""
    source = open_named(settings, name)
    require_room(
        Path(raw.FOLDER) / name,
        source.bytes,
        f"the raw table of {source.total:,} files",
        "fetch fewer, or work on a larger disk",
    )
    with Looks() as looks, atomic_folder(Path(raw.FOLDER) / name) as folder:
        fetched = write_raw(folder, source, looks)
        if not fetched.images:
            raise TemperError(f"expected images, found none: {dict(source.facts)}")
    return fetched


def in_a_copy() -> str:
    """A hint for error messages if an experiment runs in a copy of the repository, which may lack photos; else ""."""
    if repository().resolve() == Path.cwd():
        return ""
    return (
        "; this experiment works in a copy of the repository, which has only what git and DVC track: track the photos "
        "(dvc add photos.zip, see docs/sources.md), or run it without --temp and --queue"
    )


def say(name: str, fetched: Fetched) -> None:
    """Prints what was fetched, and which classes and splits its folders or tables were taken for."""
    seen_before = fetched.images - fetched.decoded
    print(f"fetch.{name}: {fetched.images:,} files" + (f", {seen_before:,} of them seen before" if seen_before else ""))
    for line in understood.describe(fetched.found):
        print(f"  {line}")
    for problem, count in fetched.problems.most_common(PROBLEMS):
        print(f"  cannot be used: {count:,}, {problem}")
    rest = sum(fetched.problems.values()) - sum(n for _, n in fetched.problems.most_common(PROBLEMS))
    if rest:
        print(f"  cannot be used: {rest:,} for other reasons; data/rejected.csv will name each")


def main(settings: Settings) -> None:
    # The row of a photo that cannot be decoded has the reason, so OpenCV need not print it on stderr as well.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in settings.fetch:
        raise TemperError(f"expected a name of `fetch` in {PARAMS} ({', '.join(settings.fetch)}), received {name!r}")
    try:
        fetched = fetch(settings, name)
    except TemperError as error:
        raise TemperError(f"fetch.{name}: {error}{in_a_copy()}") from None
    finally:
        forget_unpacked()
    say(name, fetched)


if __name__ == "__main__":
    running.run(main, Settings)
