"""The classifier as a TensorFlow graph in which each weight is a constant; all exporters start from it.

Keras's own `model.export` is not used, for three reasons. If a model contains a `Resizing` layer, Keras 3.15 runs the
layers after it in training mode unless each call says `training=False`, which makes SavedModel and ONNX files silently
wrong. Its ONNX files of some models have weights as additional inputs. Its SavedModels differ from run to run in the
order of their variables.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

PIXELS, PROBABILITIES = "pixels", "probabilities"  # the names of a file's one input and one output
SIGNATURE = "serving_default"  # what TensorFlow Serving and the LiteRT converter look for


@dataclass(frozen=True)
class Graph:
    """A graph without variables.

    Attributes:
        definition: the GraphDef.
        pixels: the name of its input tensor, float32 (n, height, width, 3).
        probabilities: the name of its output tensor, float32 (n, classes).
    """

    definition: Any
    pixels: str
    probabilities: str


def frozen(classifier: keras.Model, batch: int | None = None) -> Graph:
    """The graph of a classifier in inference mode.

    Args:
        batch: the number of images that the graph takes at a time; `None`: any.
    """
    pixels = keras.Input(classifier.input_shape[1:], batch_size=batch, name=PIXELS)
    # `training=False` both where the layers are connected and where they are called: see the module's docstring.
    inference = keras.Model(pixels, classifier(pixels, training=False), name="exported")
    return without_variables(lambda images: inference(images, training=False), (batch, *classifier.input_shape[1:]))


def without_variables(call: Callable[[Any], Any], shape: tuple[int | None, ...]) -> Graph:
    """The graph of a function of images of this shape, with its variables converted to constants."""
    before = tf.config.functions_run_eagerly()
    # Inlines nested functions into the graph. Keras computes grouped convolutions, which ConvNeXt has, in a function
    # that is marked for XLA; it would remain a function call, which ONNX does not support.
    tf.config.run_functions_eagerly(True)
    try:
        traced = tf.function(call).get_concrete_function(tf.TensorSpec(shape, tf.float32, name=PIXELS))
    finally:
        tf.config.run_functions_eagerly(before)
    constant = convert_variables_to_constants_v2(traced)
    return Graph(constant.graph.as_graph_def(), constant.inputs[0].name, constant.outputs[0].name)


def save(graph: Graph, folder: Path) -> None:
    """Writes a graph as a SavedModel; equal graphs give equal bytes.

    `tf.saved_model.save` numbers its functions by what the process has traced before. This older API writes none.
    """
    with tf.Graph().as_default() as outside:
        tf.graph_util.import_graph_def(graph.definition, name="")
        with tf.compat.v1.Session(graph=outside) as session:
            builder = tf.compat.v1.saved_model.Builder(str(folder))
            signature = tf.compat.v1.saved_model.predict_signature_def(
                {PIXELS: outside.get_tensor_by_name(graph.pixels)},
                {PROBABILITIES: outside.get_tensor_by_name(graph.probabilities)},
            )
            builder.add_meta_graph_and_variables(session, ["serve"], {SIGNATURE: signature})
            builder.save()
    (folder / "fingerprint.pb").unlink(missing_ok=True)  # a random number
    (folder / "variables").rmdir()  # it is empty, and some archives drop empty folders
