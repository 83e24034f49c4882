"""The sheets of single images that `overview` draws: which images are on them, and in which order."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from stages.cross_validate.__main__ import LABEL_ERROR_COLUMNS
from stages.evaluate.__main__ import write_mistakes, write_to_label
from stages.overview import pictures
from temper import predictions, tables
from temper.base.texts import write_csv
from temper.explanations import filters, occlusion, occlusion_table
from temper.packs import PackWriter

Row = tuple[str | None, tuple[float, ...]]

NAMES = ["ant", "bee", "cow"]
TEST: list[Row] = [  # what it is, and its probabilities
    ("ant", (0.9, 0.1, 0.0)),
    ("bee", (0.6, 0.4, 0.0)),
    ("cow", (0.0, 0.95, 0.05)),
    ("cow", (0.1, 0.44, 0.46)),
]
GREEN = {"test": 200, "unlabelled": 100, "train": 50, "validation": 1}
LOOK = np.eye(occlusion.GRID)[0].repeat(occlusion.GRID).tolist()  # the first row of cells speaks for the class
# A kernel that is red in one of its two places, one that is nothing, and a layer of which the second image is bright.
FOUND = filters.Filters(
    {"Conv1": np.array([[[[2, 0], [0, 0], [0, 0]], [[0, 0], [0, 0], [0, 0]]]], np.float32)},
    {"deep": np.array([[[[0.0]]], [[[1.0]]]], np.float16)},
    {"deep": np.array([7])},
    np.array([0, 2]),
)
UNLABELLED: list[Row] = [
    (None, (0.8, 0.1, 0.1)),
    (None, (0.5, 0.45, 0.05)),
    (None, (0.99, 0.0, 0.01)),
    (None, (0.2, 0.3, 0.5)),
]


def write_results(test: list[Row], unlabelled: list[Row], errors: Sequence[Sequence[str]] = ()) -> None:
    """Packs and predictions of images in one colour each: red is 40 times the row, GREEN tells the splits apart."""
    columns: dict[str, list[object]] = {name: [] for name in predictions.PREDICTIONS.names}
    for split, rows in (("train", test), ("validation", []), ("unlabelled", unlabelled), ("test", test)):
        image_ids = [f"{split[0]}{row:015}" for row in range(len(rows))]
        Path(f"data/packed/{split}").mkdir(parents=True)
        with PackWriter(Path(f"data/packed/{split}"), np.array(image_ids, "U16"), 8, 8) as writer:
            for row in range(len(rows)):
                writer.append(np.full((8, 8, 3), (40 * row, GREEN[split], 0), np.uint8))
            writer.finish(np.array([NAMES.index(actual) if actual else -1 for actual, _ in rows], np.int32))
        for row, (actual, shares) in enumerate(rows if split in ("unlabelled", "test") else []):
            predicted = NAMES[int(np.argmax(shares))]
            of_image = (image_ids[row], f"{split}/{row}.jpg", split, actual, predicted, list(shares))
            for name, value in zip(predictions.PREDICTIONS.names, of_image, strict=True):
                columns[name].append(value)
    tables.write(predictions.PATH, predictions.PREDICTIONS, columns)
    shown_maps = [columns[name][-1:] if test else [] for name in ("image_id", "path", "class_name", "predicted")]
    of_last = dict(zip(occlusion_table.OCCLUSION.names, [*shown_maps, [LOOK]] if test else [[]] * 5, strict=True))
    tables.write(occlusion_table.PATH, occlusion_table.OCCLUSION, of_last)
    filters.write(FOUND if test is TEST else filters.Filters({}, {}, {}, np.array([], np.int64)))
    Path(pictures.LABEL_ERRORS).parent.mkdir(parents=True)
    write_csv(Path(pictures.LABEL_ERRORS), LABEL_ERROR_COLUMNS, errors)


def shown(path: Path) -> list[tuple[str, int]]:
    """The images on a sheet, row by row: their split and their row in it."""
    sheet = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    found: list[tuple[str, int]] = []
    for line in sheet[:: pictures.CELL // 4]:
        colours = [
            (int(red), int(green)) for red, green, blue in line.tolist() if blue == 0 and green in GREEN.values()
        ]
        of_line = [
            ({of: split for split, of in GREEN.items()}[green], red // 40) for red, green in dict.fromkeys(colours)
        ]
        found += [one for one in of_line if one not in found]
    return found


@pytest.mark.usefixtures("in_tmp_path")
def test_each_sheet_shows_its_images_in_its_order() -> None:
    write_results(TEST, UNLABELLED)
    folder = Path("pictures")
    pictures.write(folder, NAMES)
    assert shown(folder / "surest_mistakes.png") == [("test", 2), ("test", 1)]
    assert shown(folder / "least_certain.png") == [("test", row) for row in (3, 1, 0, 2)]
    assert shown(folder / "unlabelled.png") == [("unlabelled", row) for row in (2, 0, 1, 3)]
    assert shown(folder / "to_label.png") == [("unlabelled", row) for row in (1, 3, 0, 2)]


@pytest.mark.usefixtures("in_tmp_path")
def test_a_sheet_without_images_is_not_drawn() -> None:
    write_results([("ant", (1.0, 0.0, 0.0))], [])
    pictures.write(Path("pictures"), NAMES)
    assert sorted(path.name for path in Path("pictures").iterdir()) == ["least_certain.png", "where_it_looks.png"]


@pytest.mark.usefixtures("in_tmp_path")
def test_to_label_lists_the_unlabelled_images_that_are_drawn() -> None:
    write_results(TEST, UNLABELLED)
    write_to_label()
    written = Path("data/to_label.csv").read_text().splitlines()
    assert written[0] == "path,predicted,probability,margin"
    assert written[1] == "unlabelled/1.jpg,ant,0.5000,0.0500"
    assert [line.split(",")[0] for line in written[1:]] == [f"unlabelled/{row}.jpg" for row in (1, 3, 0, 2)]


@pytest.mark.usefixtures("in_tmp_path")
def test_to_label_has_its_header_where_all_images_are_labelled() -> None:
    write_results(TEST, [])
    write_to_label()
    assert Path("data/to_label.csv").read_text() == "path,predicted,probability,margin\n"


@pytest.mark.usefixtures("in_tmp_path")
def test_probable_label_errors_are_drawn_in_the_order_of_their_table() -> None:
    errors = [(f"t{row:015}", f"test/{row}.jpg", "ant", "bee", "0.9") for row in (3, 1)]
    write_results(TEST, [], errors)
    pictures.write(Path("pictures"), NAMES)
    assert shown(Path("pictures/probable_label_errors.png")) == [("train", 3), ("train", 1)]


@pytest.mark.usefixtures("in_tmp_path")
def test_mistakes_lists_the_wrong_predictions_the_surest_first() -> None:
    write_results(TEST, UNLABELLED)
    write_mistakes(NAMES)
    assert Path("data/mistakes.csv").read_text().splitlines() == [
        "path,class_name,predicted,probability_of_class,probability_of_predicted",
        "test/2.jpg,cow,bee,0.0500,0.9500",
        "test/1.jpg,bee,ant,0.4000,0.6000",
    ]


def test_a_map_is_red_where_it_speaks_for_the_class_and_blue_where_against() -> None:
    image = np.full((28, 28, 3), 100, np.uint8)
    found = np.zeros((occlusion.GRID, occlusion.GRID))
    found[0, 0], found[6, 6] = 2.0, -1.0
    drawn = pictures.with_map(image, found).astype(int)
    assert drawn[0, 0, 0] - drawn[0, 0, 2] > 150 and drawn[27, 27, 2] - drawn[27, 27, 0] > 60
    assert np.array_equal(drawn[14, 14], [100, 100, 100])
    assert np.array_equal(pictures.with_map(image, np.zeros_like(found)), image)


@pytest.mark.usefixtures("in_tmp_path")
def test_kernels_and_activations_are_drawn_a_sheet_a_layer() -> None:
    write_results(TEST, [])
    pictures.write(Path("shown"), NAMES)
    kernels, deep = (
        cv2.cvtColor(cv2.imread(f"shown/filters_{name}.png"), cv2.COLOR_BGR2RGB) for name in ("Conv1", "deep")
    )
    colours = {tuple(pixel) for pixel in kernels.reshape(-1, 3).tolist()}
    assert {(255, 128, 128), (128, 128, 128)} <= colours, "a red weight, and none"
    rows = np.array_split(deep, 2)
    cell = slice(-40, -30), slice(-40, -30)  # inside the map, right of the image
    assert [int(row[cell].mean()) for row in rows] == [0, 255]
    assert shown(Path("shown/filters_deep.png")) == [("test", 0), ("test", 2)]
    assert filters.read().channels["deep"].tolist() == [7]
