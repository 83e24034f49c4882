"""cross_validate: honest to the last image, an interval that holds what it should, and wrong labels found."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.cross_validate import __main__ as stage
from stages.cross_validate.groups import PAIRS, read_groups
from stages.cross_validate.label_errors import probable_label_errors
from temper import classes, images, tables
from temper.base.errors import TemperError
from temper.base.loading import validate
from temper.base.texts import write_csv
from temper.folds import stratified_folds
from temper.logistic import Images
from temper.measures.intervals import wilson
from temper.settings.cross_validate import Settings
from temper.shards import ShardWriter
from tests.toys.embeddings import toy_images

NAMES = ["ant", "bee", "=cat"]
HEADER = ["source", "part", "row", "other_source", "other_part", "other_row"]


def write_audit(**pairs: list[tuple[int, int]]) -> None:
    """The audit files of `normalize`, by row numbers of part 0 of the source `photos`."""
    Path("data/audit").mkdir(parents=True, exist_ok=True)
    for name in PAIRS:
        found = pairs.get(name.removesuffix(".csv"), [])
        rows = [("photos", 0, one, "photos", 0, other) for one, other in found]
        write_csv(Path("data/audit") / name, HEADER, rows)


def write_toys(count: int = 90, noise: float = 2.0) -> Images:
    """What the stage reads, in the working folder: of seven images in turn five train, one validates, one tests."""
    every = toy_images(count, 12, len(NAMES), views=3, noise=noise)
    splits = np.array(
        [("train", "train", "validation", "train", "test", "train", "train")[n % 7] for n in range(count)]
    )
    columns = {
        "image_id": [f"{number:016x}" for number in range(count)],
        "source": ["photos"] * count,
        "part": [0] * count,
        "row": list(range(count)),
        "path": [f"{number}.jpg" for number in range(count)],
        "class_name": [NAMES[label] for label in every.labels],
        "split": splits.tolist(),
    }
    tables.write(images.PATH, images.IMAGES, columns)
    classes.write(NAMES)
    for split, views in (("train", 3), ("validation", 1)):
        rows = np.flatnonzero(splits == split)
        folder, ids = Path("data/embeddings") / split, [columns["image_id"][row] for row in rows]
        with ShardWriter(folder, "embeddings", ids, (views, 12), "<f4") as writer:
            for row in rows:
                writer.append(every.views[row, :views])
            writer.finish({"labels": every.labels[rows]})
    write_audit()
    return every


def run(folds: int) -> dict[str, float]:
    stage.main(Settings(seed=0, cross_validate=folds))
    figures: dict[str, float] = json.loads(Path("metrics/cross_validate/metrics.json").read_text(encoding="utf-8"))
    return figures


def test_every_image_but_the_tests_is_judged_once(in_tmp_path: Path) -> None:
    write_toys()
    figures = run(5)
    found = pq.read_table("data/out_of_fold.parquet")
    listed = images.read()
    expected = listed.filter(pa.compute.not_equal(listed["split"], "test"))
    assert sorted(found["path"].to_pylist()) == sorted(expected["path"].to_pylist())
    assert len(found) == figures["cross_validation_images"] == 77
    right = np.mean([row["predicted"] == row["class_name"] for row in found.to_pylist()])
    assert right == pytest.approx(figures["cross_validation_accuracy"]) and right > 0.7
    assert figures["cross_validation_accuracy_low"] < right < figures["cross_validation_accuracy_high"]
    assert set(found["fold"].to_pylist()) == set(range(5))
    with Path("metrics/cross_validate/probable_label_errors.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == figures["cross_validation_probable_label_errors"]


def test_the_same_seed_gives_the_same_bytes(in_tmp_path: Path) -> None:
    """Law 10."""
    write_toys()
    outputs = ["data/out_of_fold.parquet", "metrics/cross_validate/metrics.json"]
    run(3)
    before = [Path(output).read_bytes() for output in outputs]
    run(3)
    assert [Path(output).read_bytes() for output in outputs] == before


def test_off_it_reads_nothing_and_writes_tables_without_rows(in_tmp_path: Path) -> None:
    assert run(0) == {}
    assert len(tables.read("data/out_of_fold.parquet", stage.OUT_OF_FOLD)) == 0
    header = Path("metrics/cross_validate/probable_label_errors.csv").read_text(encoding="utf-8")
    assert header == "image_id,path,class_name,suggested,confidence\n"


def test_embeddings_of_other_images_are_refused(in_tmp_path: Path) -> None:
    write_toys()
    with ShardWriter(Path("data/embeddings/train"), "embeddings", ["0" * 16] * 3, (3, 12), "<f4") as writer:
        for _ in range(3):
            writer.append(np.zeros((3, 12), np.float32))
        writer.finish({"labels": np.zeros(3, np.int32)})
    with pytest.raises(TemperError, match=r"embeddings/train: expected the 64 images .*, received 3; run dvc repro"):
        run(5)


def test_one_fold_is_refused() -> None:
    with pytest.raises(TemperError, match=r"expected 0 \(off\) or 2 to 100 folds, received 1"):
        validate(Settings, {"seed": 0, "cross_validate": 1}, "params.yaml")


def test_repeated_pictures_share_a_group(in_tmp_path: Path) -> None:
    write_toys(12)
    write_audit(near_duplicates=[(0, 3), (3, 5)], duplicates=[(7, 8)], conflicts=[(1, 99)])
    groups = read_groups(images.read())
    assert groups[0] == groups[3] == groups[5] and groups[7] == groups[8]
    assert len(set(groups.tolist())) == 9


def test_labels_without_meaning_are_guessed_no_better_than_by_chance() -> None:
    """Each picture is there twice. Were its copy learned from, nearly all would be right."""
    rng = np.random.default_rng(0)
    once = rng.normal(size=(100, 1, 30)).astype(np.float32)
    labels = rng.integers(4, size=100)
    every = Images(np.concatenate([once, once]), np.tile(labels, 2))

    def accuracy(groups: np.ndarray) -> float:
        found = stage.cross_validate(every, groups, 4, 5, 0)
        return float((found.probabilities.argmax(axis=1) == every.labels).mean())

    assert 0.15 < accuracy(np.tile(np.arange(100), 2)) < 0.36
    assert accuracy(np.arange(200)) > 0.5


def test_a_class_of_one_photo_counts_as_missed() -> None:
    every = toy_images(31, 8, 3)
    every.labels[30] = 3
    found = stage.cross_validate(every, np.arange(31), 4, 5, 0)
    assert found.probabilities[30, 3] < 1e-6
    assert np.isfinite(found.probabilities).all()


@pytest.mark.parametrize(("count", "features", "classes"), [(60, 20, 3), (160, 50, 5), (300, 50, 10)])
def test_the_interval_holds_the_accuracy_of_new_images(count: int, features: int, classes: int) -> None:
    """Of heads that learned from four fifths of as many images, in 300 simulated sets.

    Nearest class means stand for the regression, which would take minutes.
    """
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(classes, features)) * 3 / features**0.5

    def draw(images: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(images) % classes
        return centres[labels] + rng.normal(size=(images, features)), labels

    def right(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        means = np.stack([train[0][train[1] == label].mean(axis=0) for label in range(classes)])
        distances: np.ndarray = np.square(means).sum(axis=1) - 2 * test[0] @ means.T
        right: np.ndarray = distances.argmin(axis=1) == test[1]
        return right

    new = draw(1000)
    bounds, accuracies = [], []
    for number in range(300):
        inputs, labels = draw(count)
        folds = stratified_folds(labels, 5, number)
        hits = 0
        for fold in range(5):
            train, test = (inputs[folds != fold], labels[folds != fold]), (inputs[folds == fold], labels[folds == fold])
            hits += int(right(train, test).sum())
        bounds.append(wilson(hits / count, count))
        accuracies.append(right(train, new).mean())
    low, high = np.array(bounds).T
    assert 0.9 <= np.mean((low <= np.mean(accuracies)) & (np.mean(accuracies) <= high)) <= 0.98


def test_flipped_labels_are_found() -> None:
    every = toy_images(400, 20, 4, noise=1.5)
    rng = np.random.default_rng(0)
    flipped = rng.permutation(400)[:40]
    labels = every.labels.copy()
    labels[flipped] = (labels[flipped] + rng.integers(1, 4, size=40)) % 4
    found = stage.cross_validate(Images(every.views, labels), np.arange(400), 4, 5, 0)
    errors = probable_label_errors(found.probabilities, labels)
    rows = np.array([error.row for error in errors])
    hits = np.isin(rows, flipped)
    assert hits.sum() / 40 >= 0.6 and hits.mean() >= 0.6  # recall and precision; by chance a tenth
    assert hits[:10].mean() >= 0.9  # the surest first
    truth = [every.labels[error.row] == error.suggested for error in errors[:10]]
    assert np.mean(truth) >= 0.9


@pytest.mark.parametrize(
    ("probabilities", "labels", "expected"),
    [
        ([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.05, 0.95]], [0, 0, 1, 1], []),
        ([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.2, 0.8]], [0, 0, 1, 1], [(1, 1)]),
        ([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.7, 0.3, 0.0]], [0, 0, 1], []),  # not as sure as of that class's own
    ],
)
def test_what_looks_like_another_class(
    probabilities: list[list[float]], labels: list[int], expected: list[tuple[int, int]]
) -> None:
    errors = probable_label_errors(np.array(probabilities), np.array(labels))
    assert [(error.row, error.suggested) for error in errors] == expected
