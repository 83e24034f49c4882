"""The backbones: every classification model of keras.applications, with its preprocessing built in, and `tiny`."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import keras

from stages.backbone import published_weights
from stages.backbone.pooling import pooled
from temper.base.errors import TemperError
from temper.settings.backbone import Pooling

TINY = "tiny"


def known() -> dict[str, ModuleType | None]:
    """The name of each backbone and the module that defines it and its preprocessing; None for `tiny`."""
    found: dict[str, ModuleType | None] = {TINY: None}
    for name, builder in vars(keras.applications).items():
        if inspect.isfunction(builder):
            found[name] = inspect.getmodule(builder)
    return dict(sorted(found.items()))


def build(
    name: str,
    arguments: dict[str, Any],
    weights: str | None,
    image_size: tuple[int, int],
    input_size: tuple[int, int] | None,
    pooling: Pooling = "avg",
) -> keras.Model:
    """A backbone: (n, height, width, 3) pixels, RGB, 0-255 -> (n, features), pooled over the image.

    Args:
        name: one of `known()`.
        arguments: further arguments of the function in keras.applications.
        weights: "imagenet", the path of a weights file, or `None` for random weights.
        image_size: height and width of the input in pixels.
        input_size: height and width to which the model itself resizes its input, or `None` for no resizing.
        pooling: whether each feature is its average over the image, its maximum, or both ("concat": all averages, then
            all maxima).

    Raises:
        TemperError: an argument is wrong, the weights do not fit, or the input is smaller than the backbone allows.
    """
    pixels = keras.Input((*image_size, 3), name="pixels")
    x = pixels if input_size is None else keras.layers.Resizing(*input_size, name="resize")(pixels)
    module = known()[name]
    if module is None:
        if arguments or weights is not None:
            raise TemperError("backbone: expected arguments: {} and weights: none with tiny, which has neither")
        features = _tiny(x)
    else:
        features = _application(name, getattr(module, name), module.preprocess_input(x), arguments, weights, pooling)
    return keras.Model(pixels, features if features.ndim == 2 else pooled(features, pooling), name="backbone")


def _application(
    name: str,
    builder: Callable[..., keras.Model],
    x: keras.KerasTensor,
    arguments: dict[str, Any],
    weights: str | None,
    pooling: Pooling,
) -> keras.KerasTensor:
    """The features of a model of keras.applications, pooled by the model itself, unless `pooling` is "concat".

    ConvNeXt normalizes after its own pooling, so the pooling must not be added afterwards.
    """
    taken = {"include_top", "weights", "input_tensor", "input_shape", "pooling", "classes", "classifier_activation"}
    allowed = sorted(set(inspect.signature(builder).parameters) - taken - {"name", "weights_name"})
    unknown = sorted(set(arguments) - set(allowed))
    if unknown:
        expected = ", ".join(allowed) or "none"
        received = ", ".join(unknown)
        raise TemperError(f"backbone.arguments: expected only {expected} with {name}, received {received}; or set {{}}")

    def make() -> keras.Model:
        # Some builders check only `input_shape` for its size, others only `input_tensor`, so they get both.
        return builder(
            include_top=False,
            weights=weights,
            input_tensor=x,
            input_shape=x.shape[1:],
            pooling=None if pooling == "concat" else pooling,
            **arguments,
        )

    try:
        model = published_weights.built_with(make) if weights == "imagenet" else make()
    except Exception as error:  # Keras raises ValueError, OSError, URLError and even plain Exception here
        raise TemperError(
            f"backbone {name} (weights {weights or 'none'}, {x.shape[1]}x{x.shape[2]} pixels): {error}; "
            f"{_advice(str(error), weights)}"
        ) from None
    return model.output


def _advice(error: str, weights: str | None) -> str:
    """What to try when Keras refuses to build a model."""
    if "input size" in error.lower():
        return "backbone.input_size enlarges small images"
    if weights == "imagenet":
        return "without network, fetch the file elsewhere and set backbone.weights to its path"
    if weights is not None:
        return "expected the path of this very model's weights, without its top and with these backbone.arguments"
    return "correct backbone.arguments"


def _tiny(x: keras.KerasTensor) -> keras.KerasTensor:
    """Four convolutions, 0.2 million parameters, no BatchNorm: enough for digits, and trains in seconds on a CPU."""
    x = keras.layers.Rescaling(1 / 127.5, -1, name="rescale")(x)
    for block, filters in enumerate((32, 64, 96, 128), start=1):
        # He initialization (arXiv:1502.01852) keeps the scale of the activations, so a head can learn on top of this
        # backbone while its weights are random.
        x = keras.layers.Conv2D(
            filters, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=f"block{block}_conv"
        )(x)
        if block < 4:
            x = keras.layers.MaxPooling2D(name=f"block{block}_pool")(x)
    return x
