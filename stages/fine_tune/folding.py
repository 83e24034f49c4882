"""Folds frozen BatchNorm layers into the convolutions before them: the same function and gradients, in less time.

A frozen norm multiplies each channel by a constant and adds another constant. Multiplying the convolution's kernel
instead is cheaper, because the kernel has about a thousandth as many numbers as the feature map; only the addition
remains (Jacob et al., arXiv:1712.05877, fold norms for inference in the same way). The order of floating-point
operations changes, so results differ in their last digits.
"""

from collections import Counter
from typing import Any

import keras

ops = keras.ops


class FoldedConvolution(keras.Layer):
    """A convolution and the frozen norm after it as one layer with their variables: (n, h, w, c) -> (n, h', w', c')."""

    def __init__(self, convolution: keras.Layer, norm: keras.layers.BatchNormalization) -> None:
        super().__init__(name=f"{convolution.name}_folded")
        self.convolution, self.norm = convolution, norm
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Applies the convolution, then the norm."""
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
    """A faster classifier that computes the same function with the same variables: training it trains the given one.

    Norms that are trainable, and norms that do not follow a convolution, are left as they are. If there is nothing to
    fold, the given classifier is returned.

    Args:
        part: the name of the nested model in which to fold norms, such as the backbone.
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
    """The convolution that a frozen norm can be folded into; None if there is none.

    The caller must still check that no other layer uses the output of that convolution.
    """
    if type(norm) is not keras.layers.BatchNormalization or norm.trainable:
        return None
    before = norm.input._keras_history.operation
    known = type(before) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    if not known or before.activation is not keras.activations.linear:
        return None
    last = before.data_format == "channels_last" and norm.axis in (-1, 3)
    return before if last else None
