"""A backbone cut in two where training begins: the frozen part below the boundary, the open part above it.

What is frozen gives the same values for the same image in every epoch, so they can be stored and the open part trained
on them (as in TensorFlow's "bottleneck features"). The open part is made of the same layers and variables as the whole:
what trains in it trains in the classifier.
"""

import math
from typing import Any

import keras

from temper.freezing.classifier import BACKBONE, HEAD


def boundary_tensors(backbone: keras.Model) -> list[keras.KerasTensor]:
    """What the open part of a backbone takes from the frozen one, in the order of the graph.

    Open is a layer that trains, or draws random numbers while others train, and whatever takes what it gives; all else
    is frozen. Where blocks branch at the boundary, several tensors cross it. Where nothing is open it is the output.
    Layers without weights that only enlarge what they take, such as padding, are left to the open part.
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
    """The layers that give these tensors."""
    return [tensor._keras_history.operation.name for tensor in tensors]


def frozen_part(backbone: keras.Model) -> keras.Model:
    """(n, height, width, 3) pixels -> the values of `boundary_tensors`, float32, (n, ...) each."""
    return keras.Model(backbone.input, boundary_tensors(backbone), name="frozen")


def open_part(classifier: keras.Model) -> keras.Model:
    """The classifier from the boundary on: the values of `boundary_tensors` -> (n, classes) probabilities.

    It has the variables of what is open, and its layers go by the same names, so whatever trains the classifier can
    train it instead. It takes one array, or several in the order of `boundary_tensors`.
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
    """What is computed in a model, each after what it takes."""
    by_depth = backbone._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def _before_padding(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """What a tensor is made from by layers without weights that enlarge it, or itself."""
    while True:
        operation, _, _ = tensor._keras_history
        inputs = operation._inbound_nodes[0].input_tensors
        enlarges = len(inputs) == 1 and math.prod(inputs[0].shape[1:]) < math.prod(tensor.shape[1:])
        if not enlarges or getattr(operation, "variables", None):
            return tensor
        tensor = inputs[0]


def _is_open(operation: Any) -> bool:
    """Whether it gives other values from one epoch to the next: its variables train, or are a random state."""
    return isinstance(operation, keras.Layer) and operation.trainable and bool(operation.variables)
