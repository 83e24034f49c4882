"""The classifier, a backbone and a head. Only this module freezes and unfreezes its layers (law 4).

The classifier takes raw pixels, RGB, 0-255 (preprocessing is inside the backbone), and returns softmax probabilities in
the order of classes.txt.
"""

import math

import keras

from temper.freezing.unfreezing import Layers, first_open

BACKBONE, HEAD = "backbone", "head"


def freeze_backbone(classifier: keras.Model) -> None:
    """Freezes the backbone, so that only the head trains."""
    classifier.get_layer(BACKBONE).trainable = False
    classifier.get_layer(HEAD).trainable = True


def unfreeze(classifier: keras.Model, start: str | float, pretrained: bool) -> None:
    """Unfreezes the backbone from `start` to its end, as `open_from` does.

    Args:
        start: "all", "none", a layer, a block or a share of the layers, as in `unfreezing.first_open`.

    Raises:
        TemperError: the backbone has no such layer; the message lists those it has.
    """
    open_from(classifier, first_open(backbone_layers(classifier), start), pretrained)


def backbone_layers(classifier: keras.Model) -> Layers:
    """The name of each layer of a classifier's backbone, in order, and whether it has weights."""
    return layers_of(classifier.get_layer(BACKBONE))


def layers_of(backbone: keras.Model) -> Layers:
    """The name of each layer of a backbone, in order, and whether it has weights."""
    return [(layer.name, bool(layer.weights)) for layer in backbone.layers]


def open_from(classifier: keras.Model, first: int, pretrained: bool) -> None:
    """Unfreezes the layers of the backbone from number `first` on, and freezes those before it; the head trains.

    Call it before `compile`, which fixes the set of trainable variables.

    BatchNorm layers of a pretrained backbone stay frozen wherever they are: a few fine-tuning batches would ruin their
    ImageNet statistics, and under `fit`, `training=False` does not prevent that (keras#20285). In a backbone with
    random weights, BatchNorm layers have no such statistics to lose and must train.
    """
    freeze_backbone(classifier)
    open_backbone_from(classifier.get_layer(BACKBONE), first, pretrained)


def open_backbone_from(backbone: keras.Model, first: int, pretrained: bool) -> None:
    """The same as `open_from`, for a backbone without a head."""
    backbone.trainable = False
    if first == len(backbone.layers):
        return
    backbone.trainable = True
    for number, layer in enumerate(backbone.layers):
        still = pretrained and isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = number >= first and not still


def trainable_parameters(model: keras.Model) -> int:
    """The number of parameters in the trainable variables of a model."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)
