"""Rebuilds a model of a library's custom layers as one flat graph of Keras's own layers with the same weights.

A model with custom layers can be loaded only where their library is installed. And a block that is a single layer to
Keras cannot be unfrozen in part, nor can BatchNorm layers in it be kept frozen or folded. So each custom layer is
replaced by the layers and operations that its `call` uses, until only those of Keras are left. Needs nothing but Keras.
"""

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

ops = keras.ops

Replacement = Callable[[Any, Any], Any]  # (custom layer, its input) -> its output, computed by Keras's layers


class CannotFlatten(Exception):
    """A custom layer has weights outside Keras's layers, so the layers that its `call` uses cannot rebuild it."""


def flatten(model: keras.Model, pixels: keras.KerasTensor, x: keras.KerasTensor) -> keras.KerasTensor:
    """The output of a functional model for the input `x`, computed by new layers of Keras with the model's weights.

    Args:
        pixels: the input of the whole graph.
        x: the input of the model, computed from `pixels`.

    Raises:
        CannotFlatten: the model has a custom layer with weights of its own that is not in `REPLACEMENTS`.
    """
    while any(not _is_of_keras(layer) for layer in model.operations):
        model = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=_inlined)
    given = keras.tree.pack_sequence_as(model.input, [pixels])
    return keras.models.clone_model(
        model, input_tensors=given, clone_function=lambda layer: layer, call_function=_Copies({id(pixels): x})
    ).output


def _is_of_keras(operation: Any) -> bool:
    return type(operation).__module__.startswith("keras.")


def _inlined(layer: Any, *inputs: Any, **how: Any) -> Any:
    """A layer's output. For a custom layer, its `call` runs directly, so that the layers inside appear in the graph."""
    if _is_of_keras(layer):
        return layer(*inputs, **how)
    for inside in layer._flatten_layers(include_self=False, recursive=False):
        inside.name = f"{layer.name}_{inside.name.removeprefix(layer.name).lstrip('_')}"
    if type(layer).__name__ in REPLACEMENTS:
        return REPLACEMENTS[type(layer).__name__](layer, inputs[0])
    if layer._trainable_variables or layer._non_trainable_variables:
        raise CannotFlatten(f"its layer {layer.name} ({type(layer).__name__}) has weights outside of Keras's layers")
    return layer.call(*inputs, **how)


class _Copies:
    """The `call_function` for `clone_model` that replaces layers by copies with the same weights on other inputs.

    Layers without effect, such as dropout at a rate of 0, are left out.

    Args:
        substituted: the replacement of a tensor, by the id of that tensor.
    """

    def __init__(self, substituted: dict[int, keras.KerasTensor]) -> None:
        self._substituted = substituted
        self._shared: dict[int, Any] = {}
        self._names: set[str] = set()

    def __call__(self, layer: Any, *inputs: Any, **how: Any) -> Any:
        inputs, how = keras.tree.map_structure(lambda one: self._substituted.get(id(one), one), (inputs, how))
        if isinstance(layer, keras.layers.Identity) or (isinstance(layer, keras.layers.Dropout) and layer.rate == 0):
            return inputs[0]
        weighted = isinstance(layer, keras.Layer) and bool(layer.weights)
        copy = self._shared.get(id(layer)) or self._new(layer, weighted)
        output = copy(*inputs, **{key: value for key, value in how.items() if key != "training"})
        if weighted:  # a layer with weights that is called twice stays one layer; others become a layer for each call
            copy.set_weights(layer.get_weights())
            self._shared[id(layer)] = copy
        return output

    def _new(self, layer: Any, weighted: bool) -> Any:
        name = layer.name.replace("/", "_")
        if not weighted:  # drop the number in Keras's automatic names, which depends on what the process made before
            words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(layer).__name__).lower()
            name = re.sub(rf"(^|_){words}_\d+$", rf"\1{words}", name)
        unique = name
        count = 1
        while unique in self._names:
            count += 1
            unique = f"{name}_{count}"
        self._names.add(unique)
        return type(layer).from_config(layer.get_config() | {"name": unique})


# --- Layers with weights of their own


def _tokens(layer: Any, images: Any) -> Any:
    """The output of a vision transformer's first layer: the patches, class token and registers with their positions.

    Each token adds a row of one table: the position of a patch, the class token plus its position, or a register. Keras
    has no layer that adds a table of weights, so an Embedding layer looks the rows up.
    """
    convolution, rows = (_of_vit if hasattr(layer, "position_embedding") else _of_dinov2)(layer)
    copy = type(convolution).from_config(convolution.get_config() | {"name": f"{layer.name}_patches"})
    x = copy(images)
    copy.set_weights(convolution.get_weights())
    patches = x.shape[1] * x.shape[2]
    x = keras.layers.Reshape((patches, x.shape[3]), name=f"{layer.name}_rows")(x)
    x = keras.layers.ZeroPadding1D((len(rows) - patches, 0), name=f"{layer.name}_others")(x)
    numbers = ops.cumsum(ops.ones_like(x[:, :, 0], dtype="int32"), axis=1) - 1
    table = keras.layers.Embedding(*rows.shape, name=f"{layer.name}_table")
    positions = table(numbers)
    table.set_weights([rows])
    return keras.layers.Add(name=f"{layer.name}_add")([x, positions])


def _of_vit(layer: Any) -> tuple[keras.layers.Conv2D, np.ndarray]:
    """For KerasHub's ViT: the convolution that makes the patches, and the table (tokens, features)."""
    rows = np.array(layer.position_embedding.embeddings)
    if layer.use_class_token:
        rows[0] += np.array(layer.class_token)[0, 0]
    return layer.patch_embedding, rows


def _of_dinov2(layer: Any) -> tuple[keras.layers.Conv2D, np.ndarray]:
    """The same for KerasHub's DINOv2, whose registers have no position."""
    rows = np.array(layer.interpolated_position_embeddings)[0]
    rows[0] += np.array(layer.cls_token)[0, 0]
    registers = np.array(layer.register_tokens)[0] if layer.num_register_tokens else rows[:0]
    return layer.patch_embeddings.projection, np.concatenate([rows[:1], registers, rows[1:]])


def _scaled(layer: Any, x: Any) -> Any:
    """Multiplies each feature by a weight (LayerScale, arXiv:2103.17239), as a depthwise convolution of width 1.

    `EinsumDense` would take three times as long, and LiteRT cannot run what it is converted to.
    """
    factors = keras.layers.DepthwiseConv1D(1, use_bias=False, name=layer.name)
    x = factors(x)
    factors.set_weights([np.array(layer.lambda1)[None, :, None]])
    return x


REPLACEMENTS: dict[str, Replacement] = {
    "ViTPatchingAndEmbedding": _tokens,
    "DINOV2Embedding": _tokens,
    "DINOV2LayerScale": _scaled,
}
