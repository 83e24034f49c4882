"""The classifier: a backbone and a head. The one owner of what is frozen.

It takes raw pixels, RGB, 0-255 (preprocessing is inside the backbone), and gives softmax probabilities in the order of
classes.txt.
"""

import math

import keras

from temper.settings.head import Head
from temper.unfreezing import first_open

BACKBONE, HEAD = "backbone", "head"


def build_head(features: int, classes: int, settings: Head) -> keras.Model:
    """The head: (n, features) embeddings -> (n, classes) probabilities."""
    inputs = keras.Input((features,), name="embedding")
    x = inputs
    for units in settings.units:
        x = keras.layers.Dense(units, use_bias=not settings.batch_norm)(x)
        if settings.batch_norm:
            x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Activation(settings.activation)(x)
        x = keras.layers.Dropout(settings.dropout)(x)
    if not settings.units:
        x = keras.layers.Dropout(settings.dropout)(x)
    outputs = keras.layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, outputs, name=HEAD)


def assemble(backbone: keras.Model, head: keras.Model) -> keras.Model:
    """The classifier: (n, height, width, 3) pixels -> (n, classes) probabilities. It shares the layers it is given."""
    inputs = keras.Input(backbone.input_shape[1:], name="pixels")
    return keras.Model(inputs, head(backbone(inputs)), name="classifier")


def freeze_backbone(classifier: keras.Model) -> None:
    """Leaves only the head to train."""
    classifier.get_layer(BACKBONE).trainable = False
    classifier.get_layer(HEAD).trainable = True


def unfreeze(classifier: keras.Model, start: str | float, pretrained: bool) -> None:
    """Opens the backbone from `start` on to training.

    Call it before `compile`, which fixes the set of trainable variables.

    BatchNorm layers of a pretrained backbone stay frozen wherever they are: a few fine-tuning batches would ruin the
    statistics of ImageNet, and `training=False` does not hold them under `fit` (keras#20285). Those of a backbone with
    random weights have nothing to lose and must learn.

    Args:
        start: "all", "none", a layer, a block or a share of the layers, as `unfreezing.first_open` takes it.

    Raises:
        TemperError: the backbone has no such layer; the message lists those it has.
    """
    freeze_backbone(classifier)
    backbone = classifier.get_layer(BACKBONE)
    first = first_open([(layer.name, bool(layer.weights)) for layer in backbone.layers], start)
    if first == len(backbone.layers):
        return
    backbone.trainable = True
    for number, layer in enumerate(backbone.layers):
        still = pretrained and isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = number >= first and not still


def trainable_parameters(model: keras.Model) -> int:
    """How many numbers training may change."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)
