"""Runs a `.tflite` file with LiteRT (formerly TensorFlow Lite), without TensorFlow. Its card is in a zip behind it."""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from temper import card, graph_checksums
from temper.base.errors import TemperError
from temper.inference.runtimes.on_threads import OnThreads
from temper.inference.runtimes.opening import missing_package, require_shape
from temper.photos import Pixels


class LiteRtModel:
    """A LiteRT model. Each thread has its own interpreter, because they cannot be shared. See `opening.Runtime`."""

    def __init__(self, path: str | Path) -> None:
        self.card = card.read(path)
        graph_checksums.require_zipped(path)
        self._path = path
        self._own = threading.local()
        self._on_threads = OnThreads(self._of_one)
        with _quiet():
            interpreter = self._interpreter()
        _, *sides = interpreter.get_input_details()[0]["shape"].tolist()
        require_shape(path, self.card.preparation, sides)

    def probabilities(self, photos: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """The probabilities of prepared photos; see `opening.Runtime`."""
        return self._on_threads(photos)

    def _of_one(self, photo: Pixels) -> npt.NDArray[np.float32]:
        interpreter = self._interpreter()
        taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        interpreter.set_tensor(taken["index"], quantized(photo[None], taken))
        interpreter.invoke()
        probabilities: npt.NDArray[np.float32] = dequantized(interpreter.get_tensor(given["index"]), given)[0]
        return probabilities

    def _interpreter(self) -> Any:
        if not hasattr(self._own, "interpreter"):
            self._own.interpreter = _load(self._path)
        return self._own.interpreter


def quantized(values: npt.NDArray[Any], tensor: Mapping[str, Any]) -> npt.NDArray[Any]:
    """Converts values to those that a tensor stores: a stored integer means (integer - zero point) * scale."""
    scale, zero = tensor["quantization"]
    kind = np.dtype(tensor["dtype"])
    if kind.kind == "f" or not scale or (kind == values.dtype and (scale, zero) == (1.0, 0)):
        return values.astype(kind)
    limits = np.iinfo(kind)
    stored: npt.NDArray[Any] = np.clip(np.rint(values / scale + zero), limits.min, limits.max).astype(kind)
    return stored


def dequantized(values: npt.NDArray[Any], tensor: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Converts the stored values of a tensor to the values that they mean, float32."""
    scale, zero = tensor["quantization"]
    if values.dtype.kind == "f" or not scale:
        return values.astype(np.float32)
    meant: npt.NDArray[np.float32] = ((values.astype(np.float32) - zero) * scale).astype(np.float32)
    return meant


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides what LiteRT writes to file descriptor 2 when its first interpreter is created.

    It is one line about the processor, which no environment variable prevents. Problems still raise errors.
    """
    real, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(real, 2)
        os.close(real)
        os.close(nowhere)


def _load(path: str | Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 (only this format needs it)
    except ImportError:
        raise missing_package(path, "ai-edge-litert") from None
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        problem = " ".join(str(error).split())[:200]
        raise TemperError(f"{path}: expected a model that LiteRT runs, received {problem}; export it again") from None
    return interpreter


def open_model(path: str | Path) -> LiteRtModel:
    """Opens a `.tflite` file.

    Raises:
        TemperError: the file is missing or damaged, has no card, or LiteRT is not installed.
    """
    return LiteRtModel(path)
