"""Where a model looks, found by hiding parts: on classifiers of which that is known."""

from pathlib import Path

import keras
import numpy as np
import pytest

from stages.evaluate import occlusion_maps
from stages.evaluate.occlusion_maps import choose
from temper import tables
from temper.explanations import occlusion_table
from temper.explanations.occlusion import GRID, hidden, log_odds, occlusion_map
from temper.packs import Pack, PackWriter
from temper.predictions import Predictions

IMAGE = np.random.default_rng(0).integers(0, 256, (28, 35, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("cell", "rows", "columns"),
    [
        (0, slice(0, 6), slice(0, 8)),
        (GRID * GRID - 1, slice(22, 28), slice(28, 35)),
        (3 * GRID + 3, slice(10, 18), slice(12, 22)),
    ],
)
def test_a_square_around_a_cell_is_hidden_and_nothing_else(cell: int, rows: slice, columns: slice) -> None:
    before = IMAGE.copy()
    changed = (hidden(IMAGE, cell) != IMAGE).any(axis=2)
    assert np.array_equal(IMAGE, before)
    inside = np.zeros_like(changed)
    inside[rows, columns] = True
    assert not changed[~inside].any() and changed[inside].mean() > 0.9
    assert len(np.unique(hidden(IMAGE, cell)[rows, columns].reshape(-1, 3), axis=0)) == 1


def test_every_part_is_hidden_by_some_cell() -> None:
    assert np.all([(hidden(IMAGE, cell) != IMAGE).any(axis=2) for cell in range(GRID * GRID)], axis=0).sum() == 0
    assert np.any([(hidden(IMAGE, cell) != IMAGE).any(axis=2) for cell in range(GRID * GRID)], axis=0).mean() > 0.99


@pytest.mark.parametrize(("row", "column"), [(0, 0), (6, 6), (1, 5), (3, 3)])
def test_the_map_is_highest_where_the_classifier_looks_and_lowest_where_it_doubts(row: int, column: int) -> None:
    image = np.full((28, 28, 3), 60, np.uint8)
    middle = slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4)
    image[middle] = 255, 0, 0
    against = (6 - row, 6 - column) if (row, column) != (3, 3) else (0, 0)
    image[4 * against[0] : 4 * against[0] + 4, 4 * against[1] : 4 * against[1] + 4] = 0, 255, 0

    def predict(images: np.ndarray) -> np.ndarray:
        """Red speaks for the second class, twice as much as green for the first."""
        red, green = ((images[..., one] > 200).sum(axis=(1, 2)) for one in (0, 1))
        odds = 0.5 * red - 0.25 * green
        second: np.ndarray = 1 / (1 + np.exp(-odds))
        return np.stack([1 - second, second], axis=1).astype(np.float32)

    found = occlusion_map(predict, image)
    assert found.shape == (GRID, GRID) and found.dtype == np.float32
    assert found[row, column] == found.max() == pytest.approx(8, abs=0.1)
    assert found[against] == found.min() == pytest.approx(-4, abs=0.1)
    far = np.abs(np.add.outer(np.arange(GRID) * 0, np.arange(GRID)) - column) > 1
    assert np.all(found[row][far[row]] <= 1e-6)


def test_log_odds_keep_their_digits_where_the_model_is_certain() -> None:
    probabilities = np.array([[1.0, 1e-12], [1.0, 1e-9], [0.25, 0.75], [0.0, 1.0]], np.float32)
    assert log_odds(probabilities, 0)[:3].tolist() == pytest.approx([27.63, 20.72, -1.0986], abs=0.01)
    assert np.isfinite(log_odds(probabilities, 0)).all()


@pytest.mark.parametrize(
    ("count", "rows"),
    [
        (0, []),
        (1, [1]),
        (2, [3, 1]),
        (4, [3, 0, 1, 5]),
        (5, [3, 0, 1, 5, 2]),
        (6, [3, 0, 1, 5, 2, 4]),
        (99, [3, 0, 1, 5, 2, 4]),
    ],
)
def test_mistakes_come_first_then_right_images_of_each_class(count: int, rows: list[int]) -> None:
    actual = ["b", "a", "a", "b", "a", "b"]
    shares = np.array([[0.7, 0.3], [0.99, 0.01], [0.98, 0.02], [0.8, 0.2], [0.97, 0.03], [0.1, 0.9]], np.float32)
    predicted = ["ab"[guess] for guess in shares.argmax(axis=1)]
    names = [str(row) for row in range(6)]
    assert choose(Predictions(names, names, actual, predicted, shares), count) == rows


@pytest.mark.usefixtures("in_tmp_path")
def test_the_maps_of_a_keras_model_are_written_and_equal_results_give_equal_bytes() -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")]
    classifier = keras.Sequential(layers)
    Path("data/pack").mkdir(parents=True)
    ids = [f"{row:016x}" for row in range(3)]
    with PackWriter(Path("data/pack"), np.array(ids), 8, 8) as writer:
        for row in range(3):
            writer.append(IMAGE[row : row + 8, :8])
        writer.finish(np.zeros(3, np.int32))
    test = Predictions(ids, ids, ["a"] * 3, ["a", "b", "a"], np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32))
    for count in (2, 2, 0):
        before = Path(occlusion_table.PATH).read_bytes() if Path(occlusion_table.PATH).exists() else None
        occlusion_maps.write(classifier, Pack("data/pack"), test, count)
        rows = tables.read(occlusion_table.PATH, occlusion_table.OCCLUSION).to_pylist()
        assert [row["image_id"] for row in rows] == [ids[1], ids[0]][:count]
        assert all(len(row["map"]) == GRID * GRID for row in rows)
        assert before is None or count == 0 or Path(occlusion_table.PATH).read_bytes() == before
