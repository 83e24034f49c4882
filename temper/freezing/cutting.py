"""Cuts a backbone in two at the boundary where training begins: the frozen part below, the open (trainable) part above.

The frozen part gives the same values for the same image in every epoch, so these can be stored, and the open part can
be trained on them (as on TensorFlow's "bottleneck features"). The open part shares its layers and variables with the
classifier: training it trains the classifier.
"""

import math
from typing import Any

import keras

from temper.freezing.classifier import BACKBONE, HEAD


def boundary_tensors(backbone: keras.Model) -> list[keras.KerasTensor]:
    """The tensors that the open part of a backbone takes from the frozen part, in the order of the graph.

    A layer is open if it is trainable and has variables (weights, or the random state of a dropout layer), or if it
    takes the output of an open layer. All others are frozen. If blocks branch at the boundary, several tensors cross
    it. If no layer is open, the result is the backbone's output.

    Layers without weights that only enlarge their input, such as padding, are left to the open part, so that the
    smaller tensor is stored.
    """
    open_operations: set[int] = set()
    crossing: dict[int, keras.KerasTensor] = {}
    for node in _nodes(backbone):
        operation, inputs = node.operation, node.input_tensors
        frozen = [tensor for tensor in inputs if id(tensor._keras_history.operation) not in open_operations]
        if len(frozen) < len(inputs) or _is_open(operation):
            open_operations.add(id(operation))
            crossing |= {id(smaller): smaller for smaller in map(_before_padding, frozen)}
    return list(crossing.values()) or [backbone.output]


def names_of(tensors: list[keras.KerasTensor]) -> list[str]:
    """The names of the layers that output these tensors."""
    return [tensor._keras_history.operation.name for tensor in tensors]


def frozen_part(backbone: keras.Model) -> keras.Model:
    """The model of the frozen part: (n, height, width, 3) pixels -> `boundary_tensors`, float32, (n, ...) each."""
    return keras.Model(backbone.input, boundary_tensors(backbone), name="frozen")


def open_part(classifier: keras.Model) -> keras.Model:
    """The classifier from the boundary on: the values of `boundary_tensors` -> (n, classes) probabilities.

    It has the variables of the open layers, and the same names for backbone and head, so code that trains the
    classifier can train this model instead. It takes one array, or several in the order of `boundary_tensors`.
    """
    backbone = classifier.get_layer(BACKBONE)
    tensors = boundary_tensors(backbone)
    inputs: Any = [keras.Input(tensor.shape[1:], dtype=tensor.dtype) for tensor in tensors]
    if tensors[0] is backbone.output:
        above = keras.Model(inputs[0], inputs[0], name=BACKBONE)
    else:
        above = keras.Model(tensors[0] if len(tensors) == 1 else tensors, backbone.output, name=BACKBONE)
    taken = inputs[0] if len(inputs) == 1 else inputs
    return keras.Model(taken, classifier.get_layer(HEAD)(above(taken)), name=classifier.name)


def _nodes(backbone: keras.Model) -> list[Any]:
    """The nodes of a model's graph, each after those that it takes its inputs from."""
    by_depth = backbone._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def _before_padding(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """Goes back through layers without weights that only enlarge their input, and returns the tensor before them."""
    while True:
        operation, _, _ = tensor._keras_history
        inputs = operation._inbound_nodes[0].input_tensors
        enlarges = len(inputs) == 1 and math.prod(inputs[0].shape[1:]) < math.prod(tensor.shape[1:])
        if not enlarges or getattr(operation, "variables", None):
            return tensor
        tensor = inputs[0]


def _is_open(operation: Any) -> bool:
    """Whether the outputs of an operation change between epochs: it has weights that train, or a random state."""
    return isinstance(operation, keras.Layer) and operation.trainable and bool(operation.variables)
