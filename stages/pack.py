"""pack: raw bytes, images and boxes -> data/packed/<split>/, arrays of `image_size`, and metrics/pack/.

Decodes every image once, on all cores: cropped to the box of its main object where it has one, then brought to size.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from tqdm import tqdm

from temper import boxes, running, tables
from temper.atomic import atomic_file, atomic_folder
from temper.errors import TemperError
from temper.packs import Pack, PackWriter
from temper.parallel import ordered_map
from temper.params import MainBox, Params
from temper.photos import Box, Pixels, decode, resize
from temper.preparation import Preparation, prepare
from temper.sheets import write_sheet

SHEET_CLASSES = 200
SHEET_PICTURES = 5
BOX_SHEET_PHOTOS = 8  # of each kind
BOX_SHEET_CELL = 160  # pixels
BOX_COLOUR = (255, 120, 0)


@dataclass(frozen=True)
class MainObject:
    """The main object of a photo."""

    box: Box
    score: float
    class_name: str | None
    share: float  # of the photo's area, 0 to 1


def find_main_objects(path: str, images: pa.Table, sizes: pa.Table, settings: MainBox) -> dict[str, MainObject]:
    """The main object of each image that has one, by image_id.

    Args:
        sizes: a row of `images` each: `height` and `width`.

    Raises:
        TemperError: the detector found objects, but none of the wanted classes in any photo.
    """
    shapes = dict(
        zip(
            images["image_id"].to_pylist(),
            zip(sizes["height"].to_pylist(), sizes["width"].to_pylist(), strict=True),
            strict=True,
        )
    )
    found: dict[str, MainObject] = {}
    names: set[str | None] = set()
    for image_id, inside in boxes.read(path):
        names.update(inside.classes)
        height, width = shapes[image_id]
        chosen = boxes.choose(inside, height, width, settings)
        if chosen is not None:
            share = float(boxes.areas(inside.corners[chosen : chosen + 1])[0]) / (height * width)
            score = float(inside.scores[chosen])
            found[image_id] = MainObject(inside.box(chosen), score, inside.classes[chosen], share)
    strange = sorted(set(settings.classes or ()) - names)
    if names and None not in names and strange:
        known = ", ".join(sorted(filter(None, names)))
        if len(strange) == len(settings.classes or ()):
            raise TemperError(
                f"pack.box.classes: expected some of what was detected ({known}), received {', '.join(strange)}; "
                "null takes any"
            )
        print(f"pack.box.classes: {', '.join(strange)}: never detected; what was: {known}")
    if names and not found:
        print(f"boxes, but none of pack.box.classes with a score of {settings.score}: every image is used as a whole")
    return found


def preparation_of(params: Params) -> Preparation:
    """How the params say that a model's input is made."""
    return Preparation(*params.image_size, params.pack.fit, params.pack.margin)


def prepared(
    raw: tables.Folders, images: pa.Table, crops: dict[str, Box], params: Params, threads: int | None = None
) -> Iterator[Pixels]:
    """The rows of `images`, in order, each uint8 (height, width, 3) of `image_size`.

    Args:
        crops: the box to crop to, by image_id; the other images stay whole.
    """
    preparation = preparation_of(params)
    work = zip(tables.stream_images(raw, images), images["image_id"].to_pylist(), strict=True)
    return ordered_map(lambda photo: prepare(photo[0], preparation, crops.get(photo[1])), work, threads)


def write_packs(folder: Path, images: pa.Table, pixels: Iterator[Pixels], classes: list[str], params: Params) -> None:
    """Writes a pack for each split, all in one pass over the images."""
    index = {name: number for number, name in enumerate(classes)}
    splits = np.asarray(images["split"].to_pylist())
    labels = np.asarray([index.get(name, -1) for name in images["class_name"].to_pylist()], np.int32)
    image_ids = np.asarray(images["image_id"].to_pylist(), "U16")
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(PackWriter(folder / split, int((splits == split).sum()), *params.image_size))
            for split in tables.SPLITS
        }
        for split, image in zip(tqdm(splits, "pack", unit="image", disable=None), pixels, strict=True):
            writers[split].append(image)
        for split, writer in writers.items():
            writer.finish(labels[splits == split], image_ids[splits == split])


def write_class_sheet(folder: Path, classes: list[str]) -> None:
    """Writes a few training images of each class, as packed."""
    train = Pack(folder / "train")
    strips = [
        (name, [train.image(int(row)) for row in np.flatnonzero(train.labels == number)[:SHEET_PICTURES]])
        for number, name in enumerate(classes[:SHEET_CLASSES])
    ]
    write_sheet("metrics/pack/classes.png", strips, SHEET_PICTURES, across=2)


def write_metrics(image_ids: list[str], found: dict[str, MainObject], crops: dict[str, Box]) -> None:
    """Writes how many images are used as a whole, as shares of all."""
    without = sum(image_id not in found for image_id in image_ids)
    too_small = sum(image_id in found and image_id not in crops for image_id in image_ids)
    shares = {"without_box": without / len(image_ids), "box_too_small": too_small / len(image_ids)}
    with atomic_file("metrics/pack/metrics.json") as partial:
        partial.write_text(json.dumps(shares, indent=2) + "\n", encoding="utf-8")


def write_box_sheet(
    raw: tables.Folders, images: pa.Table, found: dict[str, MainObject], crops: dict[str, Box], params: Params
) -> None:
    """Writes photos with their boxes, each beside its crop: the largest, the smallest, typical ones, those without."""
    rows = {image_id: row for row, image_id in enumerate(images["image_id"].to_pylist())}
    by_share = sorted(found, key=lambda image_id: (found[image_id].share, image_id))
    chosen = {
        "largest": by_share[: -BOX_SHEET_PHOTOS - 1 : -1],
        "smallest": by_share[:BOX_SHEET_PHOTOS],
        "typical": evenly_spaced(by_share, BOX_SHEET_PHOTOS),
        "without": evenly_spaced([image_id for image_id in rows if image_id not in found], BOX_SHEET_PHOTOS),
    }
    wanted = sorted({rows[image_id] for group in chosen.values() for image_id in group})
    data = dict(zip(wanted, tables.stream_images(raw, images.take(wanted)), strict=True))
    preparation = preparation_of(params)
    strips = []
    for kind, group in chosen.items():
        for image_id in group:
            photo = data[rows[image_id]]
            pictures = [
                with_box(decode(photo), found.get(image_id)),
                prepare(photo, preparation, crops.get(image_id)),
            ]
            strips.append((caption(kind, found.get(image_id)), pictures))
    write_sheet("metrics/pack/boxes.png", strips, 2, across=4, cell=BOX_SHEET_CELL)


def evenly_spaced(items: Sequence[str], count: int) -> list[str]:
    """At most `count` of the items, from the first to the last."""
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[place] for place in places]


def caption(kind: str, found: MainObject | None) -> str:
    if found is None:
        return f"{kind} a box"
    return f"{kind}: {found.share:.0%}, {found.class_name or 'published'} {found.score:.2f}"


def with_box(photo: Pixels, found: MainObject | None) -> Pixels:
    """A photo of the sheet's size with a box drawn in it."""
    scale = BOX_SHEET_CELL / max(photo.shape)
    height, width = (max(1, round(side * scale)) for side in photo.shape[:2])
    drawn = resize(photo, height, width, "stretch").copy()
    if found is not None:
        x1, y1, x2, y2 = (round(side * scale) for side in found.box)
        cv2.rectangle(drawn, (x1, y1), (x2, y2), BOX_COLOUR, 2)
    return drawn


def main(params: Params) -> None:
    images = tables.read("data/images.parquet", tables.IMAGES)
    classes = Path("data/classes.txt").read_text(encoding="utf-8").splitlines()
    sizes = tables.read_metadata_of(tables.RAW_FOLDERS, images)
    found = find_main_objects("data/boxes.parquet", images, sizes, params.pack.box)
    crops = {
        image_id: main_object.box
        for image_id, main_object in found.items()
        if boxes.shorter_side(main_object.box) >= params.pack.box.min_box
    }
    with atomic_folder("data/packed") as folder:
        write_packs(folder, images, prepared(tables.RAW_FOLDERS, images, crops, params), classes, params)
        write_class_sheet(folder, classes)
    write_box_sheet(tables.RAW_FOLDERS, images, found, crops, params)
    write_metrics(images["image_id"].to_pylist(), found, crops)
    height, width = params.image_size
    print(f"packed {len(images)} images of {height}x{width}; {len(crops)} of them cropped to a box")


if __name__ == "__main__":
    running.run(main)
