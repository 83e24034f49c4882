"""pack: raw bytes, data/images.parquet and data/boxes.parquet -> data/packed/, arrays of `image_size`; metrics/pack/.

Decodes every image once, on all cores, crops it to the box of its main object if it has one, and resizes it.
`preparation.json` records how this is done and becomes part of the model's card. `crops.parquet` holds the main
objects, for `gallery`.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin()  # before anything heavy is imported

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from temper import boxes, card, classes, crops, detections, images, raw
from temper.base import running
from temper.base.atomic import atomic_file, atomic_folder
from temper.base.disk import require_room
from temper.base.errors import TemperError
from temper.base.texts import write_json
from temper.crops import MainObject
from temper.headers import memory_to_decode
from temper.main_object import choose, shorter_side
from temper.packs import PackWriter
from temper.parallel import ordered_map
from temper.photos import BadPhoto, Pixels
from temper.preparation import Preparation, prepare
from temper.settings.pack import MainBox, Pack, Settings


def find_main_objects(path: str, table: pa.Table, sizes: pa.Table, rule: MainBox) -> dict[str, MainObject]:
    """The main object of each image that has one, by image_id.

    Args:
        path: the table of boxes.
        table: the table of images.
        sizes: the `height` and `width` of each image, in the order of `table`.
        rule: which of the detected objects is the main one.

    Raises:
        TemperError: the detector found objects, but none of the wanted classes in any photo; or a box belongs to an
            image that is not in the table.
    """
    sides = zip(sizes["height"].to_pylist(), sizes["width"].to_pylist(), strict=True)
    shapes = dict(zip(table["image_id"].to_pylist(), sides, strict=True))
    found: dict[str, MainObject] = {}
    names: set[str | None] = set()
    for image_id, inside in boxes.read(path):
        names.update(inside.classes)
        if image_id not in shapes:
            raise TemperError(
                f"{path}: expected boxes of the photos of {images.PATH}, received some of {image_id}, which is not "
                "there; run dvc repro"
            )
        height, width = shapes[image_id]
        chosen = choose(inside, height, width, rule)
        if chosen is not None:
            share = float(detections.areas(inside.corners[chosen : chosen + 1])[0]) / (height * width)
            box, score = inside.box(chosen), float(inside.scores[chosen])
            used = shorter_side(box) >= rule.min_box
            found[image_id] = MainObject(box, score, inside.classes[chosen], share, used)
    say_what_is_never_detected(names, rule)
    if names and not found:
        print(f"boxes, but none of pack.box.classes with a score of {rule.score}: every image is used as a whole")
    return found


def say_what_is_never_detected(names: set[str | None], rule: MainBox) -> None:
    """Prints the wanted classes (pack.box.classes) that the detector found in no photo.

    Raises:
        TemperError: it found objects, but none of any wanted class.
    """
    strange = sorted(set(rule.classes or ()) - names)
    if not names or None in names or not strange:
        return
    known = ", ".join(sorted(filter(None, names)))
    if len(strange) == len(rule.classes or ()):
        raise TemperError(
            f"pack.box.classes: expected detected classes ({known}), received {', '.join(strange)}; null takes any"
        )
    print(f"pack.box.classes: {', '.join(strange)}: never detected; what was: {known}")


def prepared(
    table: pa.Table, found: dict[str, MainObject], settings: Settings, threads: int | None = None
) -> Iterator[Pixels]:
    """The images of `table`, in order, each uint8 (height, width, 3) of `image_size`.

    Args:
        found: the main objects by image_id; a photo is cropped to its main object if that is marked as `used`.
        threads: how many threads decode; None: as many as there are cores.

    Raises:
        TemperError: a photo cannot be used, or its bytes are not those that were fetched.
        MemoryError: there is too little memory to decode a photo.
    """
    preparation = Preparation(*settings.image_size, settings.pack.fit, settings.pack.margin)
    cropped = {image_id: one.box for image_id, one in found.items() if one.used}
    names = zip(*(table[name].to_pylist() for name in ("image_id", "path", "source")), strict=True)

    def one(photo: tuple[bytes, tuple[str, str, str]]) -> Pixels:
        data, (image_id, path, source) = photo
        try:
            return prepare(data, preparation, cropped.get(image_id))
        except BadPhoto as error:
            raise TemperError(
                f"{path} of source {source}: expected a photo that can be used, as when it was fetched, received "
                f"{error}; to look at it anew, run dvc repro --force --single-item fetch@{source}"
            ) from None
        except MemoryError as error:
            raise MemoryError(f"{path} of source {source}: {error}") from None

    work = zip(raw.stream_images(table), names, strict=True)
    return ordered_map(one, work, threads, weigh=lambda photo: memory_to_decode(photo[0]))


def write_packs(
    folder: Path, table: pa.Table, pixels: Iterator[Pixels], names: list[str], image_size: tuple[int, int]
) -> None:
    """Writes a pack for each split, all in one pass over the images.

    Raises:
        TemperError: an image has a class that is not in `names`.
    """
    index: dict[str | None, int] = {name: number for number, name in enumerate(names)} | {None: -1}
    unknown = sorted(set(table["class_name"].to_pylist()) - set(index))
    if unknown:
        raise TemperError(f"{images.PATH}: expected classes of {classes.PATH}, received {unknown[0]}; run dvc repro")
    splits = np.asarray(table["split"].to_pylist())
    labels = np.asarray([index[name] for name in table["class_name"].to_pylist()], np.int32)
    image_ids = np.asarray(table["image_id"].to_pylist(), "U16")
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(PackWriter(folder / split, image_ids[splits == split], *image_size))
            for split in images.SPLITS
        }
        for split, image in zip(tqdm(splits, "pack", unit="image", disable=None), pixels, strict=True):
            writers[split].append(image)
        for split, writer in writers.items():
            writer.finish(labels[splits == split])


def describe(settings: Pack, image_size: tuple[int, int], detector: str, sha256: str | None) -> card.Preparation:
    """How photos are prepared, in the form that the model's card stores. Without a detector nothing is cropped."""
    height, width = image_size
    cropping = None
    if detector != "none":
        rule = settings.box.model_dump(mode="json")
        cropping = card.Crop(detector=detector, sha256=sha256, margin=settings.margin, box=rule)
    return card.Preparation(height=height, width=width, fit=settings.fit, crop=cropping)


def write_metrics(image_ids: list[str], found: dict[str, MainObject]) -> None:
    """Writes the shares of all images that are used uncropped: without a box, or with a box that is too small."""
    without = sum(image_id not in found for image_id in image_ids)
    too_small = sum(image_id in found and not found[image_id].used for image_id in image_ids)
    shares = {"without_box": without / len(image_ids), "box_too_small": too_small / len(image_ids)}
    with atomic_file("metrics/pack/metrics.json") as partial:
        write_json(partial, shares)


def main(settings: Settings) -> None:
    table = images.read()
    found = find_main_objects(boxes.PATH, table, raw.read_metadata_of(table), settings.pack.box)
    made = describe(settings.pack, settings.image_size, *boxes.read_detector(boxes.PATH))
    height, width = settings.image_size
    what = f"the packed images ({len(table):,} of {height}x{width})"
    require_room("data/packed", len(table) * height * width * 3, what, "lower image_size")
    with atomic_folder("data/packed") as folder:
        pixels = prepared(table, found, settings)
        write_packs(folder, table, pixels, classes.read(), settings.image_size)
        crops.write(folder / "crops.parquet", found)
        write_json(folder / "preparation.json", made.model_dump(mode="json"))
    write_metrics(table["image_id"].to_pylist(), found)
    cropped = sum(one.used for one in found.values())
    print(f"packed {len(table)} images of {height}x{width}; {cropped} of them cropped to a box")


if __name__ == "__main__":
    running.run(main, Settings)
