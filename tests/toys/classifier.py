"""Classifiers with random weights, and what they are fed."""

from typing import Any

import keras
import numpy as np

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


def classifier(name: str = "MobileNet", size: int = 32, **arguments: Any) -> keras.Model:
    """A classifier of three classes."""
    keras.utils.set_random_seed(0)
    backbone = build(name, arguments, None, (size, size), None)
    return assemble(backbone, build_head(backbone.output_shape[-1], 3, HEAD))
