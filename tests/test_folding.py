"""Frozen norms folded into convolutions: the same function, the same training, the same file."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from stages.fine_tune.folding import FoldedConvolution, fold_frozen_norms
from temper import keras_files
from temper.freezing.classifier import unfreeze
from tests.toys.classifier import LABELS, PIXELS, classifier

NORM = keras.layers.BatchNormalization
TARGETS = np.eye(3, dtype=np.float32)[LABELS]


def with_norms_that_do_something(name: str, **arguments: Any) -> keras.Model:
    """A pretrained backbone's likeness: its norms know the statistics of the photos, and scale and shift."""
    model = classifier(name, **arguments)
    unfreeze(model, "all", pretrained=False)
    norms = [layer for layer in model.get_layer("backbone").layers if isinstance(layer, NORM)]
    random = np.random.default_rng(0)
    for norm in norms:
        norm.momentum = 0.0  # the statistics are those of the last batch
        for weight in norm.trainable_variables:
            weight.assign(weight + random.uniform(-0.2, 0.2, weight.shape))
    model(PIXELS, training=True)
    for norm in norms:
        norm.momentum = 0.99
    return model


def folded_layers(model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in model.get_layer("backbone").layers if isinstance(layer, FoldedConvolution)]


def changes_of_two_steps(fold: bool) -> np.ndarray:
    """By how much two steps of training change all weights of a model."""
    model = with_norms_that_do_something("MobileNetV2", alpha=0.35)
    for norm in model.get_layer("backbone").layers:
        if isinstance(norm, NORM):  # on maps of a few pixels a channel hardly varies: rounding would grow thirtyfold
            norm.moving_variance.assign(keras.ops.maximum(norm.moving_variance, 0.1))
    unfreeze(model, "all", pretrained=True)
    before = [np.array(weights) for weights in model.get_weights()]
    trains = fold_frozen_norms(model, "backbone") if fold else model
    trains.compile(keras.optimizers.SGD(1e-5), "categorical_crossentropy")
    for _ in range(2):
        trains.train_on_batch(PIXELS, TARGETS)
    changes = [after - weights for after, weights in zip(model.get_weights(), before, strict=True)]
    return np.concatenate([change.ravel() for change in changes])


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [("MobileNetV2", {"alpha": 0.35}, 52), ("MobileNet", {"alpha": 0.25}, 27), ("ResNet50", {}, 53)],
)
def test_a_folded_classifier_is_the_same_function(name: str, arguments: dict[str, Any], count: int) -> None:
    model = with_norms_that_do_something(name, **arguments)
    unfreeze(model, "all", pretrained=True)
    folded = fold_frozen_norms(model, "backbone")
    assert len(folded_layers(folded)) == count
    expected = keras.ops.convert_to_numpy(model(PIXELS))
    assert np.ptp(expected[:, 0]) > 1e-3, "the photos must make a difference"
    np.testing.assert_allclose(keras.ops.convert_to_numpy(folded(PIXELS)), expected, atol=1e-3)
    assert {variable.path for variable in folded.trainable_variables} == {
        variable.path for variable in model.trainable_variables
    }


def test_it_trains_the_weights_of_the_given_one() -> None:
    expected = changes_of_two_steps(fold=False)
    changes = changes_of_two_steps(fold=True)
    assert np.linalg.norm(changes - expected) < 1e-5 * np.linalg.norm(expected) and expected.any()


def test_the_file_knows_nothing_of_the_folding(tmp_path: Path) -> None:
    model = with_norms_that_do_something("MobileNetV2", alpha=0.35)
    unfreeze(model, "all", pretrained=True)
    keras_files.save(model, tmp_path / "before.keras", {})
    fold_frozen_norms(model, "backbone")(PIXELS)
    keras_files.save(model, tmp_path / "after.keras", {})
    assert (tmp_path / "after.keras").read_bytes() == (tmp_path / "before.keras").read_bytes()


def test_norms_that_train_stay() -> None:
    model = classifier(alpha=0.25)
    unfreeze(model, "all", pretrained=False)
    assert fold_frozen_norms(model, "backbone") is model
