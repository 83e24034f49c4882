"""Chooses test images, and writes the table of occlusion maps that show where the model looks in them."""

import keras
import numpy as np
import numpy.typing as npt

from temper import tables
from temper.explanations import occlusion, occlusion_table
from temper.packs import Pack
from temper.predictions import Predictions


def choose(test: Predictions, count: int) -> list[int]:
    """The rows of the most confident mistakes, at most half of `count`, then those of correctly classified images.

    The latter take turns by class: the most confident image of each class comes first, then the second, and so on.
    """
    right = np.array([a == b for a, b in zip(test.class_names, test.predicted, strict=True)], bool)
    sure = test.probabilities.max(axis=1, initial=0)
    order = np.argsort(-sure, kind="stable")
    wrong = order[~right[order]][: count // 2]
    of_right = order[right[order]]
    spread = np.argsort(_places([test.predicted[row] for row in of_right]), kind="stable")
    return [*wrong.tolist(), *of_right[spread][: count - len(wrong)].tolist()]


def _places(names: list[str]) -> npt.NDArray[np.intp]:
    """How often each name occurred earlier in the list, (N,)."""
    seen: dict[str, int] = {}
    found = np.empty(len(names), np.intp)
    for row, name in enumerate(names):
        found[row] = seen[name] = seen.get(name, -1) + 1
    return found


def write(classifier: keras.Model, pack: Pack, test: Predictions, count: int) -> None:
    """Writes data/occlusion.parquet: the maps of `count` test images, or of all if there are fewer."""
    rows = choose(test, count)
    maps = [occlusion.occlusion_map(classifier.predict_on_batch, pack.image(row)).ravel() for row in rows]
    columns = {
        "image_id": [test.image_ids[row] for row in rows],
        "path": [test.paths[row] for row in rows],
        "class_name": [test.class_names[row] for row in rows],
        "predicted": [test.predicted[row] for row in rows],
        "map": maps,
    }
    tables.write(occlusion_table.PATH, occlusion_table.OCCLUSION, columns)
