"""ONNX, for ONNX Runtime and OpenCV: a file that takes any number of images at a time.

Its metadata, at the end of the file, has the card and a checksum of the model before it.
"""

from pathlib import Path
from typing import Any

import numpy as np

from stages.export import graph
from stages.export.artefact import Artefact, Images, Request
from temper import card, graph_checksums
from temper.base.machine import cores
from temper.measures.calibration import Probabilities

OPSET = 17  # published in 2022; ONNX Runtime reads it since 1.12


def write(request: Request, path: Path) -> None:
    """Writes a classifier for any number of images."""
    import tf2onnx  # noqa: PLC0415 (an extra: `make onnx`)

    made = graph.frozen(request.classifier)
    model, _ = tf2onnx.convert.from_graph_def(
        made.definition, input_names=[made.pixels], output_names=[made.probabilities], opset=OPSET
    )
    without_erfc(model)
    in_fixed_order(model)
    path.write_bytes(with_metadata(model.SerializeToString(deterministic=True), request.card))


def with_metadata(made: bytes, described: str) -> bytes:
    """Appends metadata, the card and a checksum, to a serialized model: protobuf reads concatenated messages as one."""
    import onnx  # noqa: PLC0415 (an extra: `make onnx`)

    behind = onnx.ModelProto()
    for key, value in ((card.NAME, described), (graph_checksums.NAME, graph_checksums.describe(made))):
        entry = behind.metadata_props.add()
        entry.key, entry.value = key, value
    whole: bytes = made + behind.SerializeToString(deterministic=True)
    return whole


def without_erfc(model: Any) -> None:
    """Replaces each `Erfc` by 1 - Erf, in place. TensorFlow makes `Erfc` from a GELU, and ONNX does not support it."""
    from onnx import TensorProto, helper  # noqa: PLC0415 (an extra: `make onnx`)

    of = model.graph
    complements = [node for node in of.node if node.op_type == "Erfc"]
    for node in complements:
        inside = f"{node.output[0]}/erf"
        of.node.append(helper.make_node("Erf", list(node.input), [inside]))
        of.node.append(helper.make_node("Sub", ["erfc/one", inside], list(node.output)))
        of.node.remove(node)
    if complements:
        of.initializer.append(helper.make_tensor("erfc/one", TensorProto.FLOAT, [], [1.0]))


def in_fixed_order(model: Any) -> None:
    """Orders and names the nodes and weights of an ONNX model by how they are connected, in place.

    tf2onnx orders and numbers them by iterating over Python sets, whose order differs from run to run.
    """
    of = model.graph
    nodes = _depth_first(of.output[0].name, {output: node for node in of.node for output in node.output})
    names = {"": "", of.input[0].name: graph.PIXELS, of.output[0].name: graph.PROBABILITIES}
    for number, node in enumerate(nodes):
        node.name = f"{node.op_type}_{number}"
        for value in (*node.input, *node.output):
            names.setdefault(value, f"value_{len(names)}")
        node.input[:] = [names[value] for value in node.input]
        node.output[:] = [names[value] for value in node.output]
    weights = {weight.name: weight for weight in of.initializer}
    ordered = [weights[name] for name in names if name in weights]
    for weight in ordered:
        weight.name = names[weight.name]
    for end in (of.input[0], of.output[0]):
        end.name = names[end.name]
        end.type.tensor_type.shape.dim[0].dim_param = "n"
    _replace(of.node, nodes)
    _replace(of.initializer, ordered)
    del of.value_info[:]  # intermediate shapes, which runtimes infer themselves


def _depth_first(output: str, makers: dict[str, Any]) -> list[Any]:
    """The nodes that an output depends on, each after the nodes that it depends on itself."""
    order: list[Any] = []
    done: set[str] = set()
    waiting = [output]
    while waiting:
        node = makers.get(waiting[-1])
        before = [] if node is None else [name for name in node.input if name in makers and name not in done]
        if before:
            waiting += reversed(before)
            continue
        name = waiting.pop()
        if node is not None and name not in done:
            order.append(node)
            done.update(node.output)
    return order


def _replace(repeated: Any, items: list[Any]) -> None:
    """Replaces the items of a repeated protobuf field by copies of `items`: clearing it empties the originals."""
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del repeated[:]
    repeated.extend(copies)


def open_artefact(path: Path) -> Artefact:
    """Opens a file with ONNX Runtime."""
    import onnxruntime  # noqa: PLC0415 (an extra: `make onnx`)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()

    def predict(images: Images) -> Probabilities:
        (probabilities,) = session.run(None, {inputs[0].name: images.astype(np.float32)})
        return probabilities  # type: ignore[no-any-return]

    text = session.get_modelmeta().custom_metadata_map.get(card.NAME, "")
    return Artefact([tuple(one.shape) for one in inputs], text, True, predict)
