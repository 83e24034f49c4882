"""LiteRT, once called TensorFlow Lite: one file for Python, phones, browsers and servers without TensorFlow.

It takes one image at a time, because LiteRT's runtime for browsers refuses a variable batch size. The card and a
checksum of the model are appended as a zip, which runtimes ignore and `zipfile` finds: this is the convention for
associated files of TensorFlow Lite.
"""

import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from stages.export import graph
from stages.export.artefact import Artefact, Images, Request
from temper import card, graph_checksums
from temper.base.machine import cores
from temper.measures.calibration import Probabilities

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip can store


def write(request: Request, path: Path) -> None:
    """Writes a classifier in float32."""
    _write(request, path, lambda converter: None)


def write_float16(request: Request, path: Path) -> None:
    """Writes a classifier whose weights are stored in 16 bits; it computes in float32."""

    def halve(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]

    _write(request, path, halve)


def write_int8(request: Request, path: Path) -> None:
    """Writes a classifier that computes in 8-bit integers; input and output stay float32.

    The ranges of its activations are measured on the calibration images.
    """

    def quantize(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: _one_by_one(request.calibration)

    _write(request, path, quantize)


def _write(request: Request, path: Path, configure: Callable[[Any], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "graph"
        graph.save(graph.frozen(request.classifier, batch=1), saved)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]  # not TensorFlow's: runtimes lack them
        configure(converter)
        made = converter.convert()
    path.write_bytes(made)
    with zipfile.ZipFile(path, "a") as appended:
        appended.writestr(zipfile.ZipInfo(card.NAME, _EPOCH), request.card)
        appended.writestr(zipfile.ZipInfo(graph_checksums.NAME, _EPOCH), graph_checksums.describe(made))


def _one_by_one(images: Images) -> Iterator[list[npt.NDArray[np.float32]]]:
    for image in images:
        yield [image[np.newaxis].astype(np.float32)]


def open_artefact(path: Path) -> Artefact:
    """Opens a file with LiteRT's runtime."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 (needed only for exporting)

    interpreter = Interpreter(str(path), num_threads=cores())
    interpreter.allocate_tensors()
    inputs, (output,) = interpreter.get_input_details(), interpreter.get_output_details()

    def predict(images: Images) -> Probabilities:
        interpreter.set_tensor(inputs[0]["index"], images.astype(np.float32))
        interpreter.invoke()
        probabilities: Probabilities = interpreter.get_tensor(output["index"])
        return probabilities

    with zipfile.ZipFile(path) as appended:
        text = appended.read(card.NAME).decode()
    return Artefact([tuple(of["shape"].tolist()) for of in inputs], text, False, predict)
