"""gallery: packed images, crops and a few raw photos -> metrics/gallery/*.png, pictures for people.

classes.png: training images of each class, as packed.
augmentation.png: training images as packed, then as the fine-tune will see them in its first epochs.
magnitudes.png: one training image under each transformation alone, at its strongest for magnitudes from 0.05 to 0.3.
mixing.png: training images mixed with one another; only with MixUp or CutMix.
boxes.png: photos with the box of their main object, each beside its packed image; only with a detector.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin()  # before anything heavy is imported

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from temper import card, classes, crops, images, mixing, raw
from temper.augmentation.augment import COUNT, PLACES, Draw, Magnitudes, augment_by, augment_images, magnitudes
from temper.base import running
from temper.base.atomic import atomic_folder
from temper.crops import MainObject
from temper.packs import Pack
from temper.photos import Pixels, decode, resize
from temper.settings.gallery import Settings
from temper.sheets import write_sheet

CLASSES = 200  # how many classes classes.png shows at most
FEW_CLASSES = 40  # up to this many classes, a line of classes.png has two of them; with more, four
PICTURES = 5  # how many images of each class
PHOTOS_WITH_BOXES = 8  # how many photos of each kind
CELL = 160  # side of a photo with a box, in pixels
COLOUR = (255, 120, 0)
GAP = np.full((1, 1, 3), 255, np.uint8)  # an empty cell between an image and what is made of it
AUGMENTED, EPOCHS = 8, 6  # how many images are shown augmented, and for how many epochs each
MAGNITUDES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
ONE_WAY = ("flip", *list(PLACES)[7:])  # the other transformations have two directions, and both are drawn


def write_classes(path: Path, train: Pack, names: Sequence[str]) -> None:
    """Draws a few training images of each class, as packed."""
    strips = [
        (name, [train.image(int(row)) for row in np.flatnonzero(train.labels == number)[:PICTURES]])
        for number, name in enumerate(names[:CLASSES])
    ]
    write_sheet(path, strips, PICTURES, across=2 if len(strips) <= FEW_CLASSES else 4)


def augmented(train: Pack, rows: npt.NDArray[np.int64], settings: Settings) -> npt.NDArray[np.uint8]:
    """Training images as augmented in the first epochs of the fine-tune: uint8 (epochs, n, height, width, 3)."""
    magnitude = magnitudes(settings.aug, settings.fine_tune.augmentation)
    shown = np.stack([train.images(rows)] * EPOCHS)
    for epoch, changed in enumerate(shown):
        augment_images(changed, rows, magnitude, settings.seed, epoch)
    return shown


def write_augmentation(path: Path, train: Pack, names: Sequence[str], settings: Settings) -> None:
    """Draws training images from all over the pack and, after a gap, how the fine-tune will augment them."""
    rows = spread(train)
    changed = augmented(train, rows, settings)
    strips = []
    for place, (row, image) in enumerate(zip(rows, train.images(rows), strict=True)):
        words = f"{names[train.labels[row]]}: as packed, then as seen in epochs 1 to {EPOCHS}"
        strips.append((words, [image, GAP, *changed[:, place]]))
    write_sheet(path, strips, EPOCHS + 2, across=1)


def spread(train: Pack) -> npt.NDArray[np.int64]:
    """At most AUGMENTED rows of a pack, evenly spaced from the first to the last."""
    return np.unique(np.linspace(0, len(train) - 1, AUGMENTED).round().astype(np.int64))


def furthest(way: int, number: int) -> Draw:
    """Random numbers that make each transformation as strong as its magnitude allows, in one of its two directions.

    Args:
        way: the direction, -1 or 1.
        number: the number of the picture, with which RandAugment draws its operations.
    """
    draw = np.full(COUNT, float(way))
    for name in ("flip", "vertical_flip", "grayscale"):
        draw[PLACES[name]] = -1
    for name in ("blur", "jpeg"):
        draw[PLACES[name]] = 1
    draw[PLACES["crop"]] = 1, 0, way, way
    draw[PLACES["erasing"]] = -1, 1, 0, 0, 0
    draw[PLACES["randaugment"]] = np.random.default_rng(number).uniform(-1, 1, draw[PLACES["randaugment"]].shape)
    return draw


def under_each(photo: Pixels, settings: Settings) -> list[tuple[str, list[Pixels]]]:
    """A photo under each transformation that follows `aug` or is switched on, one at a time: (caption, photos).

    There is one photo for each of MAGNITUDES.
    """
    chosen = magnitudes(settings.aug, settings.fine_tune.augmentation)
    found = []
    for name in PLACES:
        if name in ONE_WAY and name != "flip" and not getattr(chosen, name):
            continue
        for way in (1,) if name in ONE_WAY else (-1, 1):
            random = np.random.default_rng(settings.seed)
            on = [Magnitudes(randaugment_ops=chosen.randaugment_ops, **{name: value}) for value in MAGNITUDES]
            photos = [augment_by(photo, one, furthest(way, number), random) for number, one in enumerate(on)]
            which = "" if name in ONE_WAY else ", one way" if way == -1 else ", the other way"
            found.append((f"{name}{which}: 0, then {MAGNITUDES[0]} to {MAGNITUDES[-1]}", photos))
    return found


def write_magnitudes(path: Path, train: Pack, settings: Settings) -> None:
    """Draws a training image and, after a gap, how each transformation changes it at increasing magnitudes."""
    photo = max(train.images(spread(train)), key=lambda image: float(image.std()))  # the richest in contrast, not black
    strips = [(words, [photo, GAP, *photos]) for words, photos in under_each(photo, settings)]
    write_sheet(path, strips, len(MAGNITUDES) + 2, across=2)


def write_mixing(path: Path, train: Pack, names: Sequence[str], settings: Settings) -> None:
    """Draws training images mixed as in a batch: an image, its partner, and the mixture of the two."""
    rows, chosen = spread(train), settings.fine_tune.augmentation
    strips = []
    for kind, other in (("mixup", "cutmix"), ("cutmix", "mixup")):
        before = train.images(rows)
        alone = chosen.model_copy(update={other: 0.0})
        plan = mixing.plan(len(rows), *train.image_shape[:2], alone, settings.seed, 0, 0)
        if plan is None:
            continue
        mixed = before.copy()
        mixing.mix_images(mixed, plan)
        for place, (partner, share) in enumerate(zip(plan.partners, plan.shares, strict=True)):
            one, two = (names[train.labels[rows[number]]] for number in (place, partner))
            words = f"{kind}: {share:.2f} of {one}, {1 - share:.2f} of {two}"
            strips.append((words, [before[place], before[partner], GAP, mixed[place]]))
    write_sheet(path, strips, 4, across=2)


def write_boxes(path: Path, table: pa.Table, found: dict[str, MainObject], packed: dict[str, Pixels]) -> None:
    """Draws photos with their boxes, each beside its packed image: largest, smallest and typical boxes, and no box."""
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
    """The image_ids to show of each kind (largest, smallest, typical, without), none of them twice."""
    by_share = sorted(found, key=lambda image_id: (found[image_id].share, image_id))
    count = len(by_share)
    extremes = min(PHOTOS_WITH_BOXES, -(-count // 3))  # with few photos, a third of them
    return {
        "largest": by_share[count - extremes :][::-1],
        "smallest": by_share[: min(extremes, count - extremes)],
        "typical": evenly_spaced(by_share[extremes : count - extremes]),
        "without": evenly_spaced([image_id for image_id in dict.fromkeys(image_ids) if image_id not in found]),
    }


def evenly_spaced(items: Sequence[str], count: int = PHOTOS_WITH_BOXES) -> list[str]:
    """At most `count` of the items, evenly spaced from the first to the last."""
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[place] for place in places]


def caption(kind: str, found: MainObject | None) -> str:
    """The caption of a photo: its kind, the box's share of the photo's area, the detected class and the score."""
    if found is None:
        return f"{kind} a box"
    used = "" if found.used else ", too small to crop to"
    return f"{kind}: {found.share:.0%}, {found.class_name or 'published'} {found.score:.2f}{used}"


def with_box(photo: Pixels, found: MainObject | None) -> Pixels:
    """A photo with its box drawn in, centred on a white square: uint8 (CELL, CELL, 3)."""
    scale = CELL / max(photo.shape)
    height, width = (max(1, round(side * scale)) for side in photo.shape[:2])
    square = np.full((CELL, CELL, 3), 255, np.uint8)
    top, left = (CELL - height) // 2, (CELL - width) // 2
    square[top : top + height, left : left + width] = resize(photo, height, width, "stretch")
    if found is not None:
        x1, y1, x2, y2 = (round(side * scale) for side in found.box)
        cv2.rectangle(square, (left + x1, top + y1), (left + x2, top + y2), COLOUR, 2)
    return square


def main(settings: Settings) -> None:
    names, train = classes.read(), Pack("data/packed/train")
    made, found = card.read_preparation(), crops.read()
    with atomic_folder("metrics/gallery") as folder:
        write_classes(folder / "classes.png", train, names)
        write_augmentation(folder / "augmentation.png", train, names, settings)
        write_magnitudes(folder / "magnitudes.png", train, settings)
        write_mixing(folder / "mixing.png", train, names, settings)
        if made.crop is not None:
            table = images.read()
            packed = packed_images(table, found)
            write_boxes(folder / "boxes.png", table, found, packed)
    print(f"pictures of {min(len(names), CLASSES)} of {len(names)} classes: metrics/gallery")


def packed_images(table: pa.Table, found: dict[str, MainObject]) -> dict[str, Pixels]:
    """The packed images that `write_boxes` shows, by image_id."""
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
