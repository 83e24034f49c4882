"""Frozen BatchNorm folded into the convolution before it: the same function and the same gradients, in less time.

A frozen norm multiplies each channel by a constant and adds another. The kernel of the convolution can be multiplied
instead, which has a thousandth of the numbers; what is left is one addition (as Jacob et al., arXiv:1712.05877, fold
norms for inference). Sums are rounded in another order, so figures differ in their last digits.
"""

from collections import Counter
from typing import Any

import keras

ops = keras.ops


class FoldedConvolution(keras.Layer):
    """A convolution and the frozen norm after it, with their own weights: (n, h, w, c) -> (n, h', w', c')."""

    def __init__(self, convolution: keras.Layer, norm: keras.layers.BatchNormalization) -> None:
        super().__init__(name=f"{convolution.name}_folded")
        self.convolution, self.norm = convolution, norm
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The norm of the convolution of the inputs."""
        layer, norm = self.convolution, self.norm
        scale = ops.rsqrt(norm.moving_variance + norm.epsilon)
        if norm.scale:
            scale = scale * norm.gamma
        shift = -norm.moving_mean * scale
        if norm.center:
            shift = shift + norm.beta
        if layer.use_bias:
            shift = shift + layer.bias * scale
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            kernel = layer.kernel * ops.reshape(scale, layer.kernel.shape[2:])
            convolve = ops.depthwise_conv
        else:
            kernel, convolve = layer.kernel * scale, ops.conv
        return convolve(inputs, kernel, tuple(layer.strides), layer.padding, dilation_rate=layer.dilation_rate) + shift


def fold_frozen_norms(classifier: keras.Model, part: str) -> keras.Model:
    """A classifier that computes the same with the same variables, faster; what trains in it trains in the given one.

    Norms that train, and those that follow no convolution, stay as they are; where all do, it is the given one.

    Args:
        part: the name of the layer of the classifier, a model, in which norms are folded.
    """
    backbone = classifier.get_layer(part)
    takers = Counter(
        id(tensor._keras_history.operation)
        for nodes in backbone._nodes_by_depth.values()
        for node in nodes
        for tensor in node.input_tensors
    )
    foldable = ((norm, _foldable(norm)) for norm in backbone.layers)
    norms = {norm.name: layer for norm, layer in foldable if layer is not None and takers[id(layer)] == 1}
    if not norms:
        return classifier
    folded = {layer.name: FoldedConvolution(layer, backbone.get_layer(name)) for name, layer in norms.items()}

    def call(layer: Any, *inputs: Any, **how: Any) -> Any:
        return inputs[0] if layer.name in norms else folded.get(layer.name, layer)(*inputs, **how)

    faster = keras.models.clone_model(backbone, clone_function=lambda layer: layer, call_function=call)
    return keras.models.clone_model(
        classifier, clone_function=lambda layer: faster if layer is backbone else layer, call_function=_call
    )


def _call(layer: Any, *inputs: Any, **how: Any) -> Any:
    return layer(*inputs, **how)


def _foldable(norm: keras.Layer) -> keras.Layer | None:
    """The convolution before a frozen norm, which it can be folded into if nothing else takes what that gives."""
    if type(norm) is not keras.layers.BatchNormalization or norm.trainable:
        return None
    before = norm.input._keras_history.operation
    known = type(before) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    if not known or before.activation is not keras.activations.linear:
        return None
    last = before.data_format == "channels_last" and norm.axis in (-1, 3)
    return before if last else None
