"""evaluate: the figures of both models under names that are unique, and the tables of the fine-tuned one."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from stages.evaluate import filters
from stages.evaluate.__main__ import augmented, chosen_views, figures_of, predict
from temper import card
from temper.base.errors import TemperError
from temper.base.texts import write_csv, write_json
from temper.measures.calibration import fit_temperature
from temper.measures.figure_tables import class_table, confusion_table, curve_table, reliability_table
from temper.measures.figures import measured
from temper.packs import Pack, PackWriter
from temper.settings.evaluate import Evaluate
from temper.views import MOST, View, seen, views

CLASSES = ["a", "b", "c", "unseen"]


def case(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are too modest, and labels of the first three classes."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, images)
    powers = np.exp(random.normal(size=(images, 4)) + 1.5 * np.eye(4)[labels])
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32), labels


def test_the_metrics_have_the_names_that_pull_requests_compare() -> None:
    """Names that were there before must stay; a figure without prefix is the fine-tuned model's on test."""
    found = {
        model: {split: measured(*case(40, seed), 1.5) for split in ("", "validation_")}
        for seed, model in enumerate(("", "warm_up_"))
    }
    figures = figures_of(found)
    before = {"accuracy", "macro_precision", "macro_recall", "macro_f1", "macro_over_classes", "loss", "test_images"}
    before |= {
        f"{model}{split}{name}"
        for model, split in (("", "validation_"), ("warm_up_", ""), ("warm_up_", "validation_"))
        for name in ("accuracy", "macro_f1", "loss")
    }
    assert before <= set(figures.values)
    assert {"temperature", "warm_up_temperature", "validation_scaled_calibration_error"} <= set(figures.values)
    assert set(figures.intervals) <= set(figures.values)
    assert figures.values["accuracy"] == found[""][""].values["accuracy"]
    assert figures.values["warm_up_validation_loss"] == found["warm_up_"]["validation_"].values["loss"]


def test_scaling_is_measured_before_and_after() -> None:
    probabilities, labels = case(400)
    temperature = fit_temperature(probabilities, labels)
    found = measured(probabilities, labels, temperature)
    assert found.values["scaled_loss"] < found.values["loss"]
    assert found.values["scaled_calibration_error"] <= found.values["calibration_error"]
    low, high = found.intervals["scaled_loss"]
    assert low < found.values["scaled_loss"] < high
    plain = measured(probabilities, labels, 1.0)
    assert plain.values["scaled_loss"] == plain.values["loss"]
    assert plain.intervals["scaled_calibration_error"] == plain.intervals["calibration_error"]


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    """Law 10."""
    for name in ("first", "second"):
        found = measured(*case(50), 1.2)
        write_json(tmp_path / f"{name}.json", found.rounded)
        write_csv(tmp_path / f"{name}.csv", *class_table(found, CLASSES))
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()
    assert json.loads((tmp_path / "first.json").read_text())["accuracy"].keys() == {"low", "high"}


def test_the_table_of_classes_has_intervals_counts_and_empty_cells() -> None:
    columns, rows = class_table(measured(*case(60), 1.0), CLASSES)
    table = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [row["class_name"] for row in table] == CLASSES
    for row in table[:3]:
        for name in ("precision", "recall", "f1"):
            low, value, high = (float(str(row[f"{name}{end}"])) for end in ("_low", "", "_high"))
            assert low <= value <= high
    assert [sum(int(str(row[name])) for row in table) for name in ("images", "guesses")] == [60, 60]
    assert [table[3][name] for name in ("recall", "recall_low", "f1", "f1_high")] == [""] * 4


def test_the_reliability_table_counts_each_image_once_before_and_after() -> None:
    columns, rows = reliability_table(measured(*case(60), 0.5), CLASSES)
    images = columns.index("images")
    for said in ("as predicted", "scaled"):
        assert sum(int(str(row[images])) for row in rows if row[0] == said) == 60
    assert {row[0] for row in rows} == {"as predicted", "scaled"}


@pytest.mark.parametrize(("classes", "drawn"), [(4, {"a", "b", "c"}), (11, set())])
def test_curves_are_written_for_few_classes(classes: int, drawn: set[str]) -> None:
    probabilities, labels = case(60)
    padded = np.pad(probabilities, ((0, 0), (0, classes - 4)))
    names = [*CLASSES, *"efghijk"][:classes]
    assert {row[0] for row in curve_table(measured(padded, labels, 1.0), names)[1]} == drawn


def test_confusions_are_a_row_an_image() -> None:
    columns, rows = confusion_table(measured(np.eye(4)[[0, 1, 1]], np.array([0, 1, 2]), 1.0), CLASSES)
    assert (columns, rows) == (["actual", "predicted"], [("a", "a"), ("b", "b"), ("c", "b")])


def test_a_card_from_before_has_temperature_one() -> None:
    preparation = card.Preparation(height=8, width=8, fit="pad", crop=None)
    backbone = card.Backbone(name="tiny", arguments={}, weights="none", sha256=None)
    made = card.Card(classes=CLASSES, preparation=preparation, backbone=backbone, temperature=1.7)
    written = json.loads(made.as_entry()[card.NAME])
    assert written["temperature"] == 1.7
    del written["temperature"]
    assert card.Card.model_validate(written).temperature == 1.0


@pytest.mark.parametrize(
    ("setting", "expected", "written"),
    [
        ("none", [View()], {}),
        ("flip", [View(), View(mirrored=True)], {"test_time_augmentation": "flip"}),
        (2, [View(), View((0.5, 0.5))], {"test_time_augmentation": 2}),
        (MOST, views(MOST), {"test_time_augmentation": MOST}),
    ],
)
def test_which_views_are_averaged_and_what_the_metrics_say_of_them(
    setting: str | int, expected: list[View], written: dict[str, str | int]
) -> None:
    settings = Evaluate.model_validate({"test_time_augmentation": setting})
    assert chosen_views(settings) == expected and augmented(settings) == written


@pytest.mark.parametrize("setting", [0, 1, MOST + 1, "mirror", 2.5, True, None])
def test_other_views_are_refused(setting: object) -> None:
    with pytest.raises(ValidationError):
        Evaluate.model_validate({"test_time_augmentation": setting})


@pytest.fixture
def small_pack(tmp_path: Path) -> Pack:
    """Seventy images, more than a batch of them, of random pixels."""
    images = np.random.default_rng(0).integers(0, 256, (70, 8, 8, 3)).astype(np.uint8)
    (tmp_path / "pack").mkdir()
    with PackWriter(tmp_path / "pack", np.array([f"{row:016x}" for row in range(70)]), 8, 8) as writer:
        for image in images:
            writer.append(image)
        writer.finish(np.zeros(70, np.int32))
    return Pack(tmp_path / "pack")


def test_the_views_of_a_pack_are_averaged(small_pack: Pack) -> None:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    classifier = keras.Sequential(
        [layers.Input((8, 8, 3)), layers.Rescaling(0.01), layers.Flatten(), layers.Dense(3, activation="softmax")]
    )
    whole = small_pack.images(np.arange(70))
    plain = classifier.predict(whole, batch_size=64, verbose=0)
    assert predict(classifier, small_pack).tobytes() == plain.tobytes()
    chosen = [View(), View((1, 0)), View(mirrored=True)]
    expected = np.mean([classifier.predict(seen(whole, view), verbose=0) for view in chosen], axis=0)
    found = predict(classifier, small_pack, chosen)
    assert np.allclose(found, expected, atol=1e-6) and not np.allclose(found, plain, atol=1e-3)


def test_the_layers_that_see_colours_give_kernels_and_the_others_what_they_say_of_images(tmp_path: Path) -> None:
    pixels = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3, name="Conv1")(keras.layers.Rescaling(1 / 255)(pixels))
    deep = keras.layers.Conv2D(12, 1, activation="relu", name="block_1")(maps)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(deep)
    backbone = keras.Model(pixels, pooled, name="backbone")
    whole = keras.Input((8, 8, 3))
    classifier = keras.Model(whole, keras.layers.Dense(2, "softmax")(backbone(whole)))
    with PackWriter(tmp_path, np.array([f"{row:016x}" for row in range(9)]), 8, 8) as writer:
        for row in range(9):
            writer.append(np.random.default_rng(row).integers(0, 256, (8, 8, 3)).astype(np.uint8))
        writer.finish(np.zeros(9, np.int32))
    pack = Pack(tmp_path)
    found = filters.find(classifier, ["block_1", "Conv1"], pack)
    assert np.array_equal(found.kernels["Conv1"], backbone.get_layer("Conv1").get_weights()[0])
    assert found.rows.tolist() == [0, 2, 4, 6, 8]
    said = keras.Model(pixels, deep).predict(pack.images(found.rows), verbose=0)
    of_most = said[..., found.channels["block_1"][0]]
    assert of_most.std(axis=(1, 2)).mean() == pytest.approx(said.std(axis=(1, 2)).mean(axis=0).max(), rel=1e-5)
    expected = (of_most - of_most.min()) / np.ptp(of_most)
    np.testing.assert_allclose(found.maps["block_1"][..., 0], expected, atol=1e-3)
    assert found.maps["block_1"].shape == (5, 6, 6, filters.CHANNELS)
    with pytest.raises(TemperError, match="received 'conv1'; the nearest: Conv1, "):
        filters.find(classifier, ["conv1"], pack)
    with pytest.raises(TemperError, match=r"received pool, whose output has the shape \(None, 12\)"):
        filters.find(classifier, ["pool"], pack)
