"""Measures each exported file and runtime: the latency of a single image and the throughput of batches.

    python -m benchmarks.export [MobileNetV2] [--arguments '{"alpha": 0.35}'] [--side 224] [--rounds 7]

The model is a backbone of keras.applications with random weights and a small head, exported in every format (in ONNX if
`make onnx` was run). Latency is the wall time of one image, on one thread if the runtime allows this choice. Throughput
is that of BATCH images on all cores; files that take a single image get them one after the other. Each round runs all
runtimes in turn, so that other load on the machine affects all of them. Printed are the medians, and how far the
answers differ from Keras's. Expected for MobileNetV2 at alpha 0.35: for one image, LiteRT takes a quarter of the time
of Keras's `predict_on_batch`, or less.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin()

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from stages.export.__main__ import use_tensorflow
from temper.base import quiet
from temper.base.machine import cores
from temper.settings.export import Export

BATCH = 32
Predict = Callable[[Any], Any]  # uint8 (n, height, width, 3) -> (n, classes)


def litert(path: Path, threads: int) -> Predict:
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415

    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def one(image: Any) -> Any:
        interpreter.set_tensor(taken["index"], image[np.newaxis].astype(np.float32))
        interpreter.invoke()
        return interpreter.get_tensor(given["index"])[0]

    return lambda images: np.array([one(image) for image in images])


def onnx_runtime(path: Path, threads: int) -> Predict:
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"pixels": images.astype(np.float32)})[0]


def opencv(path: Path, threads: int) -> Predict:
    """OpenCV's runtime. It takes images as they are for an ONNX file, and with channels first for a LiteRT file."""
    net = cv2.dnn.readNet(str(path))
    channels_first = path.suffix == ".tflite"

    def one(image: Any) -> Any:
        cv2.setNumThreads(threads)
        pixels = image[np.newaxis].astype(np.float32)
        net.setInput(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)) if channels_first else pixels)
        return net.forward()[0].copy()

    return lambda images: np.array([one(image) for image in images])


def runtimes(folder: Path, classifier: Any) -> dict[str, tuple[Predict, Predict]]:
    """Of each file and runtime, who predicts on one thread and who on all; Keras and TensorFlow use all for both."""
    from stages.export.formats import saved_model  # noqa: PLC0415

    served = saved_model.open_artefact(folder / "classifier_saved_model").predict
    found: dict[str, tuple[Predict, Predict]] = {
        "Keras predict": 2 * (lambda images: classifier.predict(images, verbose=0),),
        "Keras predict_on_batch": 2 * (classifier.predict_on_batch,),
        "SavedModel": (served, served),
    }
    openers = {"LiteRT": litert, "ONNX Runtime": onnx_runtime, "OpenCV": opencv}
    files = {"LiteRT": "*.tflite", "ONNX Runtime": "*.onnx", "OpenCV": "classifier.*"}
    for name, opener in openers.items():
        for path in sorted(folder.glob(files[name])):
            found[f"{name}, {path.name}"] = opener(path, 1), opener(path, cores())
    return found


def seconds(predict: Predict, images: Any) -> float:
    start = time.perf_counter()
    predict(images)
    return time.perf_counter() - start


def main(name: str, arguments: dict[str, Any], side: int, rounds: int) -> None:
    use_tensorflow()
    quiet.keep_out_noise()
    from stages.export.artefact import Request  # noqa: PLC0415
    from stages.export.exporters import chosen  # noqa: PLC0415
    from tests.toys.classifier import CARD, alive, classifier  # noqa: PLC0415

    images = np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3)).astype(np.uint8)
    model = classifier(name, side, **arguments)
    alive(model, images)
    formats = ["litert", "litert_float16", "litert_int8", "saved_model"]
    formats += ["onnx"] if importlib.util.find_spec("tf2onnx") else []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for exporter in chosen(Export.model_validate({"formats": formats})).values():
            exporter.write(Request(model, CARD.as_entry()["card.json"], images), folder / exporter.file)
        every = runtimes(folder, model)
        reference = model.predict(images, verbose=0)
        off = {runtime: float(np.abs(alone(images) - reference).max()) for runtime, (alone, _) in every.items()}
        times: dict[str, list[tuple[float, float]]] = {runtime: [] for runtime in every}
        for _ in range(rounds):
            for runtime, (alone, together) in every.items():
                one = min(seconds(alone, images[:1]) for _ in range(3))
                times[runtime].append((one, seconds(together, images) / BATCH))
    print(f"{'':44}  one image  of {BATCH}, on {cores()} cores  largest difference")
    for runtime, measured in times.items():
        one, many = (1000 * statistics.median(column) for column in zip(*measured, strict=True))
        print(f"{runtime:44} {one:7.2f} ms  {many:7.2f} ms {1000 / many:7.0f}/s       {off[runtime]:.1g}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", nargs="?", default="MobileNetV2")
    parser.add_argument("--arguments", type=json.loads)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    default = {"alpha": 0.35} if given.backbone == "MobileNetV2" else {}
    main(given.backbone, default if given.arguments is None else given.arguments, given.side, given.rounds)
