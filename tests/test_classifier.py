"""Heads, and what is frozen (law 4)."""

from typing import get_args

import keras
import numpy as np
import pytest

from stages.warm_up.heads import build_head
from temper.base.errors import TemperError
from temper.freezing.classifier import freeze_backbone, trainable_parameters, unfreeze
from temper.settings.warm_up import Head
from tests.toys.classifier import LABELS, PIXELS, classifier


@pytest.mark.parametrize("activation", get_args(Head.model_fields["activation"].annotation))
def test_every_activation_of_the_schema_is_known_to_keras(activation: str) -> None:
    head = Head.model_validate({"units": [8], "activation": activation, "dropout": 0.0})
    assert build_head(4, 3, head).output_shape == (None, 3)


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


@pytest.mark.parametrize(("share", "count"), [(0.1, 6), (0.5, 27), (1.0, 54)])
def test_unfreeze_takes_a_share_of_the_layers_with_weights(share: float, count: int) -> None:
    """Of the 54 layers of MobileNet with weights, counted from the end; half of them are BatchNorm."""
    model = classifier(alpha=0.25)
    layers = [layer for layer in model.get_layer("backbone").layers if layer.weights]
    assert len(layers) == 54
    unfreeze(model, share, pretrained=False)
    assert [layer.name for layer in layers if layer.trainable] == [layer.name for layer in layers[-count:]]
    unfreeze(model, share, pretrained=True)
    assert not any(layer.name.endswith("_bn") and layer.trainable for layer in layers)


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
