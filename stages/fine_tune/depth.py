"""Rates that fall with the depth of a layer, and the precision that layers compute in."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from temper.freezing.unfreezing import blocks_above


def scales(backbone: keras.Model, decay: float, classifier: keras.Model) -> tuple[float, ...]:
    """What the rate of each trainable variable of a classifier is multiplied by.

    The head has 1, the last block of the backbone `decay`, the one below it its square, and so on (as in Howard and
    Ruder, arXiv:1801.06146, and Bao et al., arXiv:2106.08254): early layers know edges and colours, which new photos
    change little.

    Args:
        backbone: its layers in order; the classifier has their variables.
        classifier: as far as it is open.
    """
    above = blocks_above([(layer.name, bool(layer.weights)) for layer in backbone.layers])
    of_variable = {
        variable.path: decay**blocks
        for layer, blocks in zip(backbone.layers, above, strict=True)
        for variable in layer.variables
    }
    return tuple(of_variable.get(variable.path, 1.0) for variable in classifier.trainable_variables)


@contextmanager
def computing_in(model: keras.Model, precision: str) -> Iterator[None]:
    """Within its block the layers of a model compute in another precision; its variables and inputs keep their dtype.

    Compile within the block, and save after it: what is saved then does not know of it.

    Args:
        precision: a policy of Keras: "float32" changes nothing, "mixed_bfloat16", "mixed_float16".
    """
    layers = [] if precision == "float32" else list(model._flatten_layers(include_self=False))
    before = [(layer, layer.dtype_policy) for layer in layers if not isinstance(layer, keras.layers.InputLayer)]
    for layer, _ in before:
        layer.dtype_policy = precision
    try:
        yield
    finally:
        for layer, policy in before:
            layer.dtype_policy = policy
