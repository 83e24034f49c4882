"""Builds the head that `warm_up.head` describes, and puts it on a backbone."""

import keras

from temper.base.errors import TemperError
from temper.freezing.classifier import HEAD
from temper.logistic import Linear
from temper.settings.warm_up import Head

PROBABILITIES, LOGIT = "probabilities", "logit"


def build_head(features: int, classes: int, settings: Head) -> keras.Model:
    """The head: (n, features) embeddings -> (n, classes) probabilities.

    Raises:
        TemperError: `output` is `sigmoid`, but there are not exactly two classes.
    """
    inputs = keras.Input((features,), name="embedding")
    x = inputs
    for units in settings.units:
        x = keras.layers.Dense(units, use_bias=settings.batch_norm != "before", kernel_regularizer=penalty(settings))(x)
        if settings.batch_norm == "before":
            x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Activation(settings.activation)(x)
        if settings.batch_norm == "after":
            x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Dropout(settings.dropout)(x)
    if not settings.units:
        x = keras.layers.Dropout(settings.dropout)(x)
    return keras.Model(inputs, _output(x, classes, settings), name=HEAD)


def _output(x: keras.KerasTensor, classes: int, settings: Head) -> keras.KerasTensor:
    """The last layers: (n, classes) probabilities in float32.

    `sigmoid` is for two classes and has a single logit z, that of the second class against the first. Its output is
    computed as the softmax of (0, z), which equals (1 - sigmoid(z), sigmoid(z)) but stays exact when z is large:
    1 - sigmoid(z) would lose digits there.
    """
    if settings.output == "softmax":
        return keras.layers.Dense(
            classes, activation="softmax", kernel_regularizer=penalty(settings), dtype="float32", name=PROBABILITIES
        )(x)
    if classes != 2:
        raise TemperError(
            f"warm_up.head.output: expected softmax with {classes} classes, received sigmoid, which is for two"
        )
    logit = keras.layers.Dense(1, kernel_regularizer=penalty(settings), dtype="float32", name=LOGIT)(x)
    zero = keras.layers.Rescaling(0.0, dtype="float32", name="zero")(logit)
    both = keras.layers.Concatenate(dtype="float32", name="logits")([zero, logit])
    return keras.layers.Activation("softmax", dtype="float32", name=PROBABILITIES)(both)


def penalty(settings: Head) -> keras.Regularizer | None:
    """The L1 and L2 penalties on a layer's kernel, which are added to the loss; None if both are 0."""
    if settings.l1 == settings.l2 == 0:
        return None
    return keras.regularizers.L1L2(settings.l1, settings.l2)


def write_linear(head: keras.Model, linear: Linear) -> None:
    """Sets the weights of a head without hidden layers to those of a linear classifier."""
    if LOGIT in [layer.name for layer in head.layers]:
        kernel, bias = linear.kernel[:, 1:] - linear.kernel[:, :1], linear.bias[1:] - linear.bias[:1]
        head.get_layer(LOGIT).set_weights([kernel, bias])
    else:
        head.get_layer(PROBABILITIES).set_weights([linear.kernel, linear.bias])


def assemble(backbone: keras.Model, head: keras.Model) -> keras.Model:
    """The classifier: (n, height, width, 3) pixels -> (n, classes) probabilities. It shares both models' layers."""
    inputs = keras.Input(backbone.input_shape[1:], name="pixels")
    return keras.Model(inputs, head(backbone(inputs)), name="classifier")
