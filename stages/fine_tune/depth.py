"""Learning rates that decrease from the head down to the first layers, and the precision that layers compute in."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from temper.freezing.unfreezing import blocks_above


def scales(backbone: keras.Model, decay: float, classifier: keras.Model) -> tuple[float, ...]:
    """The factor by which the learning rate of each trainable variable is multiplied, in the order of the variables.

    The head has the factor 1, the last block of the backbone `decay`, the block below it `decay ** 2`, and so on (as in
    Howard and Ruder, arXiv:1801.06146, and Bao et al., arXiv:2106.08254). Early layers detect edges and colours, which
    need little change for new photos.

    Args:
        backbone: the classifier's backbone, whose variables the two share.
        decay: the factor from one block to the next one below, 0 to 1.
        classifier: the model to train, frozen as it trains.
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
    """A context in which a model's layers compute in another precision; variables and inputs keep their dtype.

    Compile and train inside the context. Save the model after it, so that the file does not contain the precision.

    Args:
        precision: a Keras dtype policy: "float32" (changes nothing), "mixed_bfloat16" or "mixed_float16".
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
