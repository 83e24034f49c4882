"""gallery: packed images, crops and a few raw photos -> metrics/gallery/*.png, pictures for people.

classes.png: training images of each class, as packed. boxes.png: photos with their main object beside what was packed.
augmentation.png: training images as the fine-tune will see them in its first epochs.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from temper import card, classes, crops, images, raw
from temper.base import running
from temper.base.atomic import atomic_folder
from temper.crops import MainObject
from temper.packs import Pack
from temper.photos import Pixels, decode, resize
from temper.settings.gallery import Settings
from temper.sheets import write_sheet
from temper.training.augmentation import augment_images, magnitudes

CLASSES = 200  # on the sheet, at most
PICTURES = 5  # of each class
PHOTOS_WITH_BOXES = 8  # of each kind
CELL = 160  # pixels of a photo with a box
COLOUR = (255, 120, 0)
AUGMENTED, EPOCHS = 8, 6  # images, and how often each is shown


def write_classes(path: Path, train: Pack, names: Sequence[str]) -> None:
    """Draws a few training images of each class, as packed."""
    strips = [
        (name, [train.image(int(row)) for row in np.flatnonzero(train.labels == number)[:PICTURES]])
        for number, name in enumerate(names[:CLASSES])
    ]
    write_sheet(path, strips, PICTURES, across=2)


def write_augmentation(path: Path, train: Pack, names: Sequence[str], settings: Settings) -> None:
    """Draws training images, spread over the pack, and how the first epochs of the fine-tune will change them."""
    magnitude = magnitudes(settings.aug, settings.fine_tune.augmentation)
    rows = np.unique(np.linspace(0, len(train) - 1, AUGMENTED).round().astype(np.int64))
    strips = []
    for row in rows:
        shown = [train.image(int(row)).copy()]
        for epoch in range(EPOCHS):
            changed = train.images(rows[rows == row])
            augment_images(changed, rows[rows == row], magnitude, settings.seed, epoch)
            shown.append(changed[0])
        strips.append((names[train.labels[row]], shown))
    write_sheet(path, strips, EPOCHS + 1, across=1)


def write_boxes(path: Path, table: pa.Table, found: dict[str, MainObject], packed: "dict[str, Pixels]") -> None:
    """Draws photos with their boxes, each beside what was packed: the largest, the smallest, typical ones, without."""
    rows = {image_id: row for row, image_id in enumerate(table["image_id"].to_pylist())}
    chosen = choose(found, list(rows))
    wanted = sorted({rows[image_id] for group in chosen.values() for image_id in group})
    data = dict(zip(wanted, raw.stream_images(table.take(wanted)), strict=True))
    strips = []
    for kind, group in chosen.items():
        for image_id in group:
            photo = decode(data[rows[image_id]])
            strips.append(
                (caption(kind, found.get(image_id)), [with_box(photo, found.get(image_id)), packed[image_id]])
            )
    write_sheet(path, strips, 2, across=4, cell=CELL)


def choose(found: dict[str, MainObject], image_ids: Sequence[str]) -> dict[str, list[str]]:
    """The image_ids to show of each kind."""
    by_share = sorted(found, key=lambda image_id: (found[image_id].share, image_id))
    return {
        "largest": by_share[: -PHOTOS_WITH_BOXES - 1 : -1],
        "smallest": by_share[:PHOTOS_WITH_BOXES],
        "typical": evenly_spaced(by_share),
        "without": evenly_spaced([image_id for image_id in image_ids if image_id not in found]),
    }


def evenly_spaced(items: Sequence[str], count: int = PHOTOS_WITH_BOXES) -> list[str]:
    """At most `count` of the items, from the first to the last."""
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[place] for place in places]


def caption(kind: str, found: MainObject | None) -> str:
    """What stands above a photo: which kind it is, the box's share of it, its class and score."""
    if found is None:
        return f"{kind} a box"
    return f"{kind}: {found.share:.0%}, {found.class_name or 'published'} {found.score:.2f}"


def with_box(photo: Pixels, found: MainObject | None) -> Pixels:
    """A photo of the sheet's size with a box drawn in it."""
    scale = CELL / max(photo.shape)
    height, width = (max(1, round(side * scale)) for side in photo.shape[:2])
    drawn = resize(photo, height, width, "stretch").copy()
    if found is not None:
        x1, y1, x2, y2 = (round(side * scale) for side in found.box)
        cv2.rectangle(drawn, (x1, y1), (x2, y2), COLOUR, 2)
    return drawn


def main(settings: Settings) -> None:
    names, train = classes.read(), Pack("data/packed/train")
    made, found = card.read_preparation(), crops.read()
    with atomic_folder("metrics/gallery") as folder:
        write_classes(folder / "classes.png", train, names)
        write_augmentation(folder / "augmentation.png", train, names, settings)
        if made.crop is not None:
            table = images.read()
            packed = packed_images(table, found)
            write_boxes(folder / "boxes.png", table, found, packed)
    print(f"pictures of {len(names)} classes: metrics/gallery")


def packed_images(table: pa.Table, found: dict[str, MainObject]) -> dict[str, Pixels]:
    """The packed form of the images that `write_boxes` shows, by image_id."""
    image_ids = table["image_id"].to_pylist()
    wanted = {image_id for group in choose(found, image_ids).values() for image_id in group}
    shown: dict[str, Pixels] = {}
    for split in images.SPLITS:
        pack = Pack(f"data/packed/{split}")
        for row, image_id in enumerate(pack.image_ids.tolist()):
            if image_id in wanted and image_id not in shown:
                shown[image_id] = pack.image(row)
    return shown


if __name__ == "__main__":
    running.run(main, Settings)
