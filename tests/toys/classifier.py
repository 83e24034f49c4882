"""Classifiers with random weights, and inputs for them."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from stages.backbone.architectures import build
from stages.warm_up.heads import assemble, build_head
from temper.card import Backbone, Card, Crop, Preparation
from temper.settings.warm_up import Head

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
LABELS = np.arange(8, dtype=np.int32) % 3
HEAD = Head(units=[8], activation="relu", batch_norm="before", dropout=0.1)
CARD = Card(
    classes=["ant", "bee", "crème brûlée"],
    preparation=Preparation(
        height=32,
        width=32,
        fit="pad",
        crop=Crop(detector="yolox", sha256="0" * 64, margin=0.1, box={"classes": ["car"], "score": 0.3}),
    ),
    backbone=Backbone(name="MobileNet", arguments={"alpha": 0.25}, weights="none", sha256=None),
)


def classifier(name: str = "MobileNet", side: int = 32, input_size: int | None = None, **arguments: Any) -> keras.Model:
    """A classifier of three classes.

    Args:
        input_size: height and width that images are resized to inside it; `None`: no resizing.
    """
    keras.utils.set_random_seed(0)
    backbone = build(name, arguments, None, (side, side), None if input_size is None else (input_size, input_size))
    return assemble(backbone, build_head(backbone.output_shape[-1], 3, HEAD))


def alive(model: keras.Model, images: npt.NDArray[np.uint8]) -> None:
    """Changes a classifier with random weights so that its answers differ between images.

    Its norms get the statistics of these images, and its last layer larger weights.
    """
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    trainable = [norm.trainable for norm in norms]
    for norm in norms:
        norm.trainable, norm.momentum = True, 0.0
    model(images.astype(np.float32), training=True)
    for norm, before in zip(norms, trainable, strict=True):
        norm.trainable, norm.momentum = before, 0.99
    head = model.get_layer("head")
    last = head.get_layer("probabilities")
    hidden = keras.Model(head.input, last.input).predict(
        model.get_layer("backbone").predict(images, verbose=0), verbose=0
    )
    logits = hidden @ last.get_weights()[0]
    scale = 0.5 / logits.std(axis=0).max()
    last.set_weights([scale * last.get_weights()[0], -scale * logits.mean(axis=0)])
