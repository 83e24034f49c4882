"""The warm-up: heads as the settings describe them, and the solver `logistic`."""

import json
import signal
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml

from stages.warm_up.heads import build_head, write_linear
from stages.warm_up.regression import search
from temper import keras_files
from temper.base.errors import TemperError
from temper.base.loading import validate
from temper.logistic import Images, Linear, log_losses, path
from temper.settings.warm_up import Head, Settings
from tests.toys.embeddings import toy_images
from tests.toys.workspace import Workspace, ran

STRENGTHS = [1e-3, 1e-2, 0.1, 1.0, 10.0]


def settings(**warm_up: Any) -> Settings:
    return validate(Settings, {"seed": 0, "batch_size": 16, "warm_up": warm_up}, "params.yaml")


def layers(head: keras.Model) -> list[str]:
    """The layers of a head behind its input, with their widths."""
    return [f"{type(layer).__name__}{getattr(layer, 'units', '')}" for layer in head.layers[1:]]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "Dropout Dense3"),
        ({"like": "linear"}, "Dropout Dense3"),
        ({"like": "light"}, "Dense128 Activation Dropout Dense3"),
        (
            {"like": "heavy"},
            "Dense512 BatchNormalization Activation Dropout Dense256 BatchNormalization Activation Dropout Dense3",
        ),
        ({"like": "heavy", "units": [8]}, "Dense8 BatchNormalization Activation Dropout Dense3"),
        ({"units": [8], "batch_norm": "after"}, "Dense8 Activation BatchNormalization Dropout Dense3"),
        ({"like": "heavy", "units": [8], "batch_norm": "none"}, "Dense8 Activation Dropout Dense3"),
    ],
)
def test_a_head_has_the_layers_of_its_settings(given: dict[str, Any], expected: str) -> None:
    head = build_head(4, 3, settings(head=given).warm_up.head)
    assert layers(head) == expected.split()
    dense = [layer for layer in head.layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.use_bias for layer in dense] == ["BatchNormalizationActivation" not in expected.replace(" ", "")] * (
        len(dense) - 1
    ) + [True]


@pytest.mark.parametrize(
    ("like", "written"),
    [
        ("linear", {"units": [], "dropout": 0.2}),
        ("light", {"units": [128], "dropout": 0.15}),
        ("heavy", {"units": [512, 256], "batch_norm": "before", "dropout": 0.5}),
    ],
)
def test_a_ready_made_head_is_short_for_its_settings(like: str, written: dict[str, Any]) -> None:
    made, same = settings(head={"like": like}).warm_up.head, settings(head=written).warm_up.head
    assert made == same.model_copy(update={"like": like})
    weights = []
    for chosen in (made, same):
        keras.utils.set_random_seed(0)
        weights.append(build_head(4, 3, chosen).get_weights())
    assert all(np.array_equal(one, other) for one, other in zip(*weights, strict=True))


def test_penalties_are_added_to_the_loss() -> None:
    head = build_head(4, 3, Head(units=[5], l1=0.25, l2=0.5))
    kernels = [layer.get_weights()[0] for layer in head.layers if isinstance(layer, keras.layers.Dense)]
    expected = sum(0.25 * np.abs(kernel).sum() + 0.5 * np.square(kernel).sum() for kernel in kernels)
    assert float(sum(head.losses)) == pytest.approx(expected, rel=1e-5)
    assert build_head(4, 3, Head(units=[5])).losses == []


def test_a_single_logit_gives_two_probabilities(tmp_path: Path) -> None:
    """Those of the sigmoid, in full precision on both sides, and in a file that loads without this project."""
    head = build_head(4, 2, Head(output="sigmoid"))
    inputs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32) * 20
    kernel, bias = head.get_layer("logit").get_weights()
    assert kernel.shape == (4, 1)
    logits = (inputs @ kernel + bias).astype(np.float64)[:, 0]
    expected = np.stack([1 / (1 + np.exp(logits)), 1 / (1 + np.exp(-logits))], axis=1)
    found = head.predict(inputs, verbose=0)
    assert found == pytest.approx(expected, rel=1e-4)
    assert found.min() < 1e-7
    keras_files.save(head, tmp_path / "head.keras", {})
    again = keras.saving.load_model(tmp_path / "head.keras", safe_mode=True)
    assert np.array_equal(again.predict(inputs, verbose=0), found)


def test_a_single_logit_is_for_two_classes() -> None:
    with pytest.raises(TemperError, match="expected softmax with 3 classes, received sigmoid, which is for two"):
        build_head(4, 3, Head(output="sigmoid"))


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_a_linear_head_says_what_the_regression_says(output: str) -> None:
    images = toy_images(60, 8, 2)
    linear = next(path(images, 2, [0.3]))
    head = build_head(8, 2, Head.model_validate({"output": output, "dropout": 0.0}))
    write_linear(head, linear)
    assert head.predict(images.plain, verbose=0) == pytest.approx(linear.probabilities(images.plain), abs=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"head": {"units": [8], "batch_norm": True}}, "head.batch_norm: .*received true; write before instead"),
        ({"head": {"units": [8], "batch_norm": False}}, "received false; write none instead"),
        ({"head": {"batch_norm": "before"}}, "batch_norm belongs to layers before the output, received units: "),
        ({"head": {"activation": "elu"}}, "activation belongs to layers before the output"),
        ({"head": {"like": "hevy"}}, r"warm_up.head.like: .*; did you mean heavy\?"),
        ({"head": {"like": ["heavy"]}}, "warm_up.head.like: "),
        ({"C": [1.0]}, "warm_up.C is not a setting of solver: gradient: remove it"),
        (
            {"solver": "logistic", "epochs": 3},
            "warm_up.epochs is not a setting of solver: logistic: remove it, for an ",
        ),
        ({"solver": "logistic", "lr": 1e-3}, r"experiment with -S '~warm_up.lr'"),
        ({"solver": "logistic", "optimizer": {"name": "adam"}}, "warm_up.optimizer is not a setting"),
        ({"solver": "logistic", "schedule": {"name": "cosine"}}, "warm_up.schedule is not a setting"),
        ({"solver": "logistic", "early_stopping": {"patience": 3}}, "warm_up.early_stopping is not a setting"),
        ({"solver": "logistic", "select": "val_loss"}, "warm_up.select is not a setting"),
        ({"solver": "logistic", "head": {"dropout": 0.1}}, "warm_up.head.dropout is not a setting"),
        ({"solver": "logistic", "head": {"l2": 0.1}}, "warm_up.head.l2 is not a setting"),
        ({"solver": "logistic", "head": {"units": [8]}}, r"for a linear head, received warm_up.head.units: \[8\]"),
        ({"solver": "logistic", "head": {"like": "heavy"}}, r"linear head, received warm_up.head.units: \[512, 256\]"),
        ({"solver": "logistic", "C": [1.0, 0.1]}, r"warm_up.C: expected rising values, received \[1.0, 0.1\]"),
        ({"solver": "logistic", "C": []}, "warm_up.C: "),
        ({"solver": "newton"}, "warm_up.solver: "),
    ],
)
def test_settings_that_the_choice_does_not_use_are_refused(given: dict[str, Any], message: str) -> None:
    """Law 8."""
    with pytest.raises(TemperError, match=message) as caught:
        settings(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [120, 20])
def test_c_is_chosen_by_validation_and_by_folds_where_it_is_small(count: int) -> None:
    train, validation = toy_images(60, 30, 3, views=2, noise=5), toy_images(count, 30, 3, noise=5, seed=1)
    found = search(train, validation, 3, STRENGTHS, seed=0)
    chosen = found.records[found.best]
    assert chosen["judged_loss"] == min(record["judged_loss"] for record in found.records)
    assert chosen["val_loss"] == pytest.approx(loss(found.linear, validation))
    alone = all(record["judged_loss"] == pytest.approx(record["val_loss"]) for record in found.records)
    assert alone == (count == 120)
    assert [record["C"] for record in found.records] == STRENGTHS[: len(found.records)]


def test_folds_help_a_validation_split_of_three_photos() -> None:
    """Over 20 draws of 15 training photos, the loss on new images is lower than by the three photos alone."""
    gains = []
    for seed in range(20):
        train, validation = (toy_images(size, 40, 3, noise=3, seed=10 * seed + size) for size in (15, 3))
        new = toy_images(300, 40, 3, noise=3, seed=1000 + seed)
        every = list(path(train, 3, STRENGTHS))
        alone = min(every, key=lambda linear: loss(linear, validation))
        gains.append(loss(alone, new) - loss(search(train, validation, 3, STRENGTHS, seed).linear, new))
    assert np.mean(gains) > 0.02


def loss(linear: Linear, images: Images) -> float:
    return float(log_losses(linear.probabilities(images.plain), images.labels).mean())


def checksum(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow  # three runs of the pipeline
def test_the_pipeline_with_a_regression(pipeline: Workspace) -> None:
    """The page of results is drawn, the figures keep their names, and a kill changes no bit (law 5)."""
    before = json.loads((pipeline.folder / "metrics/warm_up/metrics.json").read_text(encoding="utf-8"))
    params = yaml.safe_load((pipeline.folder / "params.yaml").read_text(encoding="utf-8"))
    pipeline.set(warm_up={"solver": "logistic"}, cross_validate=3)
    output = pipeline.run("dvc repro")
    assert sorted(ran(output)) == ["cross_validate", "evaluate", "export", "fine_tune", "overview", "warm_up"]
    after = json.loads((pipeline.folder / "metrics/warm_up/metrics.json").read_text(encoding="utf-8"))
    assert set(after) == set(before) | {"warm_up_C"}
    assert after["warm_up_best_val_accuracy"] >= before["warm_up_best_val_accuracy"]
    summary = (pipeline.folder / "metrics/overview/summary.svg").read_text(encoding="utf-8")
    assert f"logistic regression, C {after['warm_up_C']:g} of {after['warm_up_epochs']} tried" in summary
    curve = (pipeline.folder / "metrics/overview/loss.csv").read_text(encoding="utf-8")
    assert curve.count("warm-up,validation") == after["warm_up_epochs"]
    estimate = json.loads((pipeline.folder / "metrics/cross_validate/metrics.json").read_text(encoding="utf-8"))
    assert estimate["cross_validation_accuracy"] > 0.8
    whole = checksum(pipeline.folder / "models/warm_up.keras")
    process = pipeline.start("python -m stages.warm_up")
    time.sleep(4)  # somewhere in it, or before it, or behind it
    process.send_signal(signal.SIGKILL)
    process.communicate()
    pipeline.run("python -m stages.warm_up")
    assert checksum(pipeline.folder / "models/warm_up.keras") == whole
    pipeline.set(warm_up=params["warm_up"], cross_validate=0)
    assert ran(pipeline.run("dvc repro")) == []
