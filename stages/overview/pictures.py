"""Contact sheets of single images: mistakes, uncertain predictions, unlabelled images, and where the model looks."""

import csv
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from temper import predictions, tables
from temper.explanations import filters, occlusion, occlusion_table
from temper.explanations.filters import Filters
from temper.measures.uncertainty import margins, worth_labelling
from temper.packs import Pack
from temper.photos import Pixels
from temper.predictions import Predictions
from temper.sheets import CELL as SHEET_CELL
from temper.sheets import write_sheet

LABEL_ERRORS = "metrics/cross_validate/probable_label_errors.csv"
MOST_LABEL_ERRORS = 40
MOST_MISTAKES = 40
MOST_UNCERTAIN = 24
CELL = 160  # pixels
ACROSS = 6
FOR, AGAINST = np.array((255, 40, 0)), np.array((0, 90, 255))
MOST_COLOUR = 0.75  # opacity of the strongest cell of a map, so that the image stays visible
MOST_CLASSES = 60  # how many predicted classes the sheet of unlabelled images shows: the most frequent ones
OF_CLASS = 8  # how many images of each of these classes
OF_ROW = 16  # how many kernels in a row


def write(folder: Path, names: Sequence[str]) -> None:
    """Draws every sheet into a folder, which must not exist; a sheet without images is left out.

    Args:
        names: the class names, in the order of the probabilities.
    """
    folder.mkdir()
    test, of_test = predictions.read("test"), Pack("data/packed/test")
    write_mistakes(folder / "surest_mistakes.png", test, of_test)
    write_least_certain(folder / "least_certain.png", test, of_test, names)
    write_looks(folder / "where_it_looks.png", of_test)
    unlabelled, of_unlabelled = predictions.read("unlabelled"), Pack("data/packed/unlabelled")
    write_predicted(folder / "unlabelled.png", unlabelled, of_unlabelled)
    write_worth_labelling(folder / "to_label.png", unlabelled, of_unlabelled, names)
    write_label_errors(folder / "probable_label_errors.png")
    write_filters(folder, filters.read(), of_test)


def write_mistakes(path: Path, test: Predictions, pack: Pack) -> None:
    """Draws the misclassified test images, the most confident mistakes first."""
    sure = test.highest
    strips = [
        (f"{test.class_names[row]}, taken for {test.predicted[row]} ({sure[row]:.2f})", [pack.image(row)])
        for row in test.wrong_rows()[:MOST_MISTAKES]
    ]
    write_sheet(path, strips, per_strip=1, across=ACROSS, cell=CELL)


def write_least_certain(path: Path, test: Predictions, pack: Pack, names: Sequence[str]) -> None:
    """Draws the test images whose two most probable classes have the closest probabilities, right or wrong."""
    rows = np.argsort(margins(test.probabilities), kind="stable")[:MOST_UNCERTAIN].tolist()
    strips = [(f"{test.class_names[row]}: {two_likeliest(test, row, names)}", [pack.image(row)]) for row in rows]
    write_sheet(path, strips, per_strip=1, across=ACROSS, cell=CELL)


def write_predicted(path: Path, unlabelled: Predictions, pack: Pack) -> None:
    """Draws the most confident predictions of each class for unlabelled images; of many classes, the most frequent."""
    sure, counted = unlabelled.highest, Counter(unlabelled.predicted)
    shown = sorted(name for name, _ in counted.most_common(MOST_CLASSES))
    strips = []
    for name in shown:
        rows = [row for row, predicted in enumerate(unlabelled.predicted) if predicted == name]
        rows = unlabelled.surest(rows)[:OF_CLASS]
        said = f"{counted[name]} taken for {name}; the surest, {sure[rows[0]]:.2f} to {sure[rows[-1]]:.2f}"
        strips.append((said, [pack.image(row) for row in rows]))
    write_sheet(path, strips, per_strip=min(OF_CLASS, max(counted.values(), default=1)), across=1, cell=CELL)


def write_worth_labelling(path: Path, unlabelled: Predictions, pack: Pack, names: Sequence[str]) -> None:
    """Draws the first images of data/to_label.csv."""
    rows = worth_labelling(unlabelled.probabilities)[:MOST_UNCERTAIN].tolist()
    strips = [(two_likeliest(unlabelled, row, names), [pack.image(row)]) for row in rows]
    write_sheet(path, strips, per_strip=1, across=ACROSS, cell=CELL)


def write_label_errors(path: Path) -> None:
    """Draws the first images of metrics/cross_validate/probable_label_errors.csv."""
    with Path(LABEL_ERRORS).open(encoding="utf-8", newline="") as file:
        listed = list(itertools.islice(csv.DictReader(file), MOST_LABEL_ERRORS))
    if not listed:
        return
    packs = [Pack(f"data/packed/{split}") for split in ("train", "validation")]
    places = {image_id: (pack, row) for pack in packs for row, image_id in enumerate(pack.image_ids.tolist())}
    strips = []
    for one in listed:
        pack, row = places[one["image_id"]]
        said = f"{one['class_name']}, or {one['suggested']} ({one['confidence']})"
        strips.append((said, [pack.image(row)]))
    write_sheet(path, strips, per_strip=1, across=ACROSS, cell=CELL)


def write_looks(path: Path, pack: Pack) -> None:
    """Draws the images of data/occlusion.parquet, each beside its map of evidence for and against its prediction."""
    rows = {image_id: row for row, image_id in enumerate(pack.image_ids.tolist())}
    strips = []
    for one in tables.read(occlusion_table.PATH, occlusion_table.OCCLUSION).to_pylist():
        right = one["class_name"] == one["predicted"]
        image = pack.image(rows[one["image_id"]])
        said = one["predicted"] if right else f"{one['class_name']}, taken for {one['predicted']}"
        strips.append((said, [image, with_map(image, np.array(one["map"]).reshape(occlusion.GRID, occlusion.GRID))]))
    write_sheet(path, strips, per_strip=2, across=ACROSS // 2, cell=CELL)


def write_filters(folder: Path, found: Filters, pack: Pack) -> None:
    """Draws a sheet for each layer of data/filters.npz: its kernels, or some test images with its feature maps."""
    for name, kernels in found.kernels.items():
        shown = kernel_pictures(kernels)
        strips = [
            (f"{name}, {start} to {min(start + OF_ROW, len(shown)) - 1}", shown[start : start + OF_ROW])
            for start in range(0, len(shown), OF_ROW)
        ]
        write_sheet(folder / f"filters_{name}.png", strips, per_strip=OF_ROW, across=1)
    for name, maps in found.maps.items():
        numbers = ", ".join(map(str, found.channels[name].tolist()))
        strips = []
        for row, of_image in zip(found.rows.tolist(), maps, strict=True):
            grey = (np.moveaxis(of_image, 2, 0)[..., None].repeat(3, axis=3) * 255.0).round().astype(np.uint8)
            said = f"{name}: a test image, then the channels {numbers}"
            strips.append((said, [pack.image(row), *(enlarged(one) for one in grey)]))
        write_sheet(folder / f"filters_{name}.png", strips, per_strip=1 + maps.shape[3], across=1)


def kernel_pictures(kernels: npt.NDArray[np.float32]) -> list[Pixels]:
    """Each kernel of (height, width, 3, filters) as a picture: 0 is grey, its largest absolute weight 0 or 255."""
    scaled = kernels / np.maximum(np.abs(kernels).max(axis=(0, 1, 2)), 1e-9)
    pixels = (127.5 + 127.5 * scaled).round().astype(np.uint8)
    return [enlarged(one) for one in np.moveaxis(pixels, 3, 0)]


def enlarged(pixels: Pixels) -> Pixels:
    """A small picture enlarged to at least a cell's size without smoothing its pixels: (height, width, 3)."""
    times = max(1, -(-SHEET_CELL // max(pixels.shape[:2])))
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def with_map(image: Pixels, found: npt.NDArray[np.float64]) -> Pixels:
    """An image in grey under its occlusion map: red is evidence for the predicted class, blue evidence against it."""
    height, width = image.shape[:2]
    strength = cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR) / max(
        float(np.abs(found).max()), 1e-9
    )
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    colour = np.where(strength[..., None] > 0, FOR, AGAINST)
    share = MOST_COLOUR * np.abs(strength)[..., None]
    mixed: Pixels = (grey * (1 - share) + colour * share).round().astype(np.uint8)
    return mixed


def two_likeliest(found: Predictions, row: int, names: Sequence[str]) -> str:
    """The two most probable classes of an image, with their probabilities."""
    order = np.argsort(-found.probabilities[row], kind="stable")[:2].tolist()
    return " or ".join(f"{names[number]} {found.probabilities[row, number]:.2f}" for number in order)
