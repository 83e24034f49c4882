"""pack: raw bytes, images and boxes -> data/packed/<split>/, arrays of `image_size`, and metrics/pack/classes.png.

Decodes every image once, on all cores: cropped to its box where it has one, then brought to size.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from temper import running, tables
from temper.atomic import atomic_folder
from temper.packs import Pack, PackWriter
from temper.parallel import ordered_map
from temper.params import Params
from temper.photos import Pixels, decode, resize
from temper.sheets import write_sheet

Box = tuple[float, float, float, float]  # x1, y1, x2, y2

SHEET_CLASSES = 200
SHEET_PICTURES = 5


def crop(pixels: Pixels, box: Box, margin: float) -> Pixels:
    """The part of a photo inside `box`, widened on each side by `margin` of the box and clamped to the photo.

    Args:
        box: x1, y1, x2, y2 in pixels.
        margin: a fraction of the box's width and height.
    """
    x1, y1, x2, y2 = box
    beside, above = (x2 - x1) * margin, (y2 - y1) * margin
    height, width = pixels.shape[:2]
    left, top = max(0, math.floor(x1 - beside)), max(0, math.floor(y1 - above))
    right, bottom = min(width, math.ceil(x2 + beside)), min(height, math.ceil(y2 + above))
    if left >= right or top >= bottom:
        return pixels
    return pixels[top:bottom, left:right]


def read_boxes(path: str) -> dict[str, Box]:
    """The box of each image that has one, by image_id."""
    boxes = tables.read(path, tables.BOXES, ["image_id", "x1", "y1", "x2", "y2"])
    return {row["image_id"]: (row["x1"], row["y1"], row["x2"], row["y2"]) for row in boxes.to_pylist()}


def prepared(
    raw: Sequence[str | Path], images: pa.Table, boxes: dict[str, Box], params: Params, threads: int | None = None
) -> Iterator[Pixels]:
    """The rows of `images`, in order, each uint8 (height, width, 3) of `image_size`."""
    height, width = params.image_size
    fit, margin = params.pack.fit, params.pack.margin

    def prepare(work: tuple[bytes, str]) -> Pixels:
        data, image_id = work
        pixels = decode(data)
        if image_id in boxes:
            pixels = crop(pixels, boxes[image_id], margin)
        return resize(pixels, height, width, fit)

    work = zip(tables.stream_images(raw, images), images["image_id"].to_pylist(), strict=True)
    return ordered_map(prepare, work, threads)


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


def main(params: Params) -> None:
    images = tables.read("data/images.parquet", tables.IMAGES)
    classes = Path("data/classes.txt").read_text(encoding="utf-8").splitlines()
    boxes = read_boxes("data/boxes.parquet")
    with atomic_folder("data/packed") as folder:
        write_packs(folder, images, prepared(tables.RAW_FOLDERS, images, boxes, params), classes, params)
        write_class_sheet(folder, classes)
    height, width = params.image_size
    print(f"packed {len(images)} images of {height}x{width}; {len(boxes)} of them have a box")


if __name__ == "__main__":
    running.run(main)
