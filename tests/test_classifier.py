"""Backbones, heads, freezing, and files of equal bytes (laws 3, 4 and 10)."""

import time
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import pytest

from stages.backbone.architectures import build, known
from temper import keras_files
from temper.base.errors import TemperError
from temper.classifier import assemble, build_head, freeze_backbone, trainable_parameters, unfreeze
from temper.params import BackboneName, Head

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
LABELS = np.arange(8, dtype=np.int32) % 3
HEAD = Head(units=[8], activation="relu", batch_norm=True, dropout=0.1)


def classifier(name: str = "MobileNet", size: int = 32, **arguments: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    backbone = build(name, arguments, None, (size, size), None)
    return assemble(backbone, build_head(backbone.output_shape[-1], 3, HEAD))


def test_every_model_of_keras_applications_is_known_to_the_schema() -> None:
    assert sorted(get_args(BackboneName)) == sorted(known())
    assert {"tiny", "EfficientNetB0", "MobileNetV3Small", "ResNet50", "ConvNeXtTiny", "Xception"} <= set(known())


@pytest.mark.parametrize("activation", get_args(Head.model_fields["activation"].annotation))
def test_every_activation_of_the_schema_is_known_to_keras(activation: str) -> None:
    head = Head.model_validate({"units": [8], "activation": activation, "batch_norm": False, "dropout": 0.0})
    assert build_head(4, 3, head).output_shape == (None, 3)


@pytest.mark.parametrize("name", ["ResNet50", "ResNet50V2", "DenseNet121", "EfficientNetB0", "MobileNetV2", "VGG16"])
def test_preprocessing_is_inside_the_backbone(name: str) -> None:
    """Law 3: raw pixels in. Equal to the published model behind its published preprocessing (three kinds and none)."""
    keras.utils.set_random_seed(0)
    ours = build(name, {}, None, (32, 32), None)
    theirs = getattr(keras.applications, name)(weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3))
    theirs.set_weights(ours.get_weights())
    expected = theirs.predict(known()[name].preprocess_input(PIXELS.astype(np.float32)), verbose=0)  # type: ignore[union-attr]
    assert ours.predict(PIXELS, verbose=0) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_a_small_image_is_resized_inside_the_backbone() -> None:
    backbone = build("MobileNet", {"alpha": 0.25}, None, (32, 32), (96, 96))
    assert backbone.input_shape == (None, 32, 32, 3)
    assert backbone.get_layer("conv1").output.shape[1:3] == (48, 48)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Xception", {}, None, (32, 32), None), r"must be at least 71x71.*backbone.input_size enlarges"),
        (("MobileNet", {"alpha": 0.3, "beta": 1}, None, (32, 32), None), r"expected only alpha.*, received beta"),
        (("MobileNet", {}, "/no/such.h5", (32, 32), None), r"\(weights /no/such.h5.*expected the path of this"),
        (("tiny", {}, "imagenet", (32, 32), None), r"weights: none with tiny"),
    ],
)
def test_a_backbone_that_cannot_be_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(TemperError, match=message):
        build(*arguments)


def test_real_weights_fit(shared: Path) -> None:
    weights = str(shared / "weights/mobilenet_2_5_224_tf_no_top.h5")
    backbone = build("MobileNet", {"alpha": 0.25}, weights, (96, 96), None)
    with pytest.raises(TemperError, match="backbone MobileNet"):
        build("MobileNet", {"alpha": 0.5}, weights, (96, 96), None)
    assert backbone.output_shape == (None, 256)


def batch_norm_state(model: keras.Model) -> list[np.ndarray]:
    backbone = model.get_layer("backbone")
    layers = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(layers) == 27
    return [np.array(weights) for layer in layers for weights in layer.get_weights()]


def convolutions(model: keras.Model) -> list[np.ndarray]:
    return [np.array(layer.get_weights()[0]) for layer in model.get_layer("backbone").layers if is_convolution(layer)]


def is_convolution(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)


def changed(before: list[np.ndarray], after: list[np.ndarray]) -> int:
    return sum(not np.array_equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize(("pretrained", "moves"), [(True, False), (False, True)])
def test_batch_norm_of_a_pretrained_backbone_stays_still_under_fit(pretrained: bool, moves: bool) -> None:
    """Law 4, with the whole backbone open."""
    model = classifier(alpha=0.25)
    unfreeze(model, "all", pretrained)
    for layer in filter(is_convolution, model.get_layer("backbone").layers):
        layer.set_weights([2 * weights for weights in layer.get_weights()])  # or no signal reaches the head
    before = batch_norm_state(model)
    kernels = convolutions(model)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(PIXELS, LABELS, epochs=2, verbose=0)
    assert (changed(before, batch_norm_state(model)) > 0) is moves
    assert changed(kernels, convolutions(model)) > 0


def test_a_frozen_backbone_stays_still_under_fit() -> None:
    model = classifier(alpha=0.25)
    freeze_backbone(model)
    before = [np.array(w) for w in model.get_layer("backbone").get_weights()]
    head = [np.array(w) for w in model.get_layer("head").get_weights()]
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(PIXELS, LABELS, epochs=2, verbose=0)
    assert changed(before, model.get_layer("backbone").get_weights()) == 0
    assert changed(head, model.get_layer("head").get_weights()) > 0


@pytest.mark.parametrize(
    ("start", "first"),
    [("conv_pw_13", "conv_pw_13"), ("conv_dw_12", "conv_dw_12"), ("all", "conv1"), ("none", None)],
)
def test_unfreeze_opens_from_a_layer_on(start: str, first: str | None) -> None:
    model = classifier(alpha=0.25)
    unfreeze(model, start, pretrained=True)
    opened = [layer.name for layer in model.get_layer("backbone").layers if layer.trainable_weights]
    assert (opened[0] if opened else None) == first
    assert not any(name.endswith("_bn") for name in opened)
    if opened:
        assert opened[-1] == "conv_pw_13"


def test_unfreeze_takes_the_name_of_a_block() -> None:
    model = classifier("ResNet50")
    unfreeze(model, "conv5_block3", pretrained=True)
    opened = [layer.name for layer in model.get_layer("backbone").layers if layer.trainable_weights]
    assert opened == ["conv5_block3_1_conv", "conv5_block3_2_conv", "conv5_block3_3_conv"]
    assert trainable_parameters(model) == 4_459_520 + trainable_parameters(model.get_layer("head"))


def test_an_unknown_layer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TemperError, match=r"received 'conv_pw_99' \(did you mean conv_pw_9\?\); its blocks: conv1,"):
        unfreeze(classifier(alpha=0.25), "conv_pw_99", pretrained=True)
    with pytest.raises(TemperError, match=r"received 'block13' \(did you mean block_13\?\).*; its layers: Conv1, "):
        unfreeze(classifier("MobileNetV2"), "block13", pretrained=True)


@pytest.mark.parametrize("name", ["tiny", "MobileNet", "ResNet50"])
def test_equal_weights_give_equal_bytes(tmp_path: Path, name: str) -> None:
    """Law 10: however much later, and from other objects, compiled or not."""
    first = classifier(name)
    keras_files.save(first, tmp_path / "first.keras")
    time.sleep(2)  # zip entries have a resolution of 2 s
    second = keras_files.load(tmp_path / "first.keras")
    second.compile("adam", "mse")
    keras_files.save(second, tmp_path / "second.keras")
    keras_files.save(first, tmp_path / "again.keras")
    assert (tmp_path / "again.keras").read_bytes() == (tmp_path / "first.keras").read_bytes()
    third = keras_files.load(tmp_path / "first.keras")
    keras_files.save(third, tmp_path / "third.keras")
    assert (tmp_path / "second.keras").read_bytes() == (tmp_path / "third.keras").read_bytes()
    assert np.array_equal(first.predict(PIXELS, verbose=0), second.predict(PIXELS, verbose=0))


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.keras").write_bytes(b"PK")
    with pytest.raises(TemperError, match="expected a model written by Keras"):
        keras_files.load(tmp_path / "half.keras")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in known() if not name.endswith(("Large", "XLarge", "B7", "B6"))])
def test_every_backbone_is_built_saved_and_loaded(tmp_path: Path, name: str) -> None:
    """The biggest ones of each family differ in nothing but their sizes."""
    backbone = (
        build(name, {}, None, (96, 96), None) if "NASNet" not in name else build(name, {}, None, (224, 224), None)
    )
    keras_files.save(backbone, tmp_path / "backbone.keras")
    again = keras_files.load(tmp_path / "backbone.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (1, *backbone.input_shape[1:])).astype(np.float32)
    assert np.array_equal(backbone(pixels), again(pixels))
