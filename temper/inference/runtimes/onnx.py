"""Runs an `.onnx` file with ONNX Runtime, without TensorFlow. Its card is in the model's metadata."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from temper import graph_checksums
from temper.base.errors import TemperError
from temper.card import NAME, Card
from temper.inference.runtimes.on_threads import OnThreads
from temper.inference.runtimes.opening import missing_package, require_shape
from temper.photos import Pixels

_KINDS = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(float16)": np.float16}


class OnnxModel:
    """A model of ONNX Runtime; see `opening.Runtime`."""

    def __init__(self, path: str | Path) -> None:
        self._session = _load(path)
        self.card = _card(path, self._session)
        graph_checksums.require(path, self._session.get_modelmeta().custom_metadata_map.get(graph_checksums.NAME))
        taken = self._session.get_inputs()[0]
        require_shape(path, self.card.preparation, taken.shape[1:])
        self._name, self._kind = taken.name, _KINDS.get(taken.type, np.float32)
        self._on_threads = OnThreads(self._of_one)

    def probabilities(self, photos: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """The probabilities of prepared photos; see `opening.Runtime`."""
        return self._on_threads(photos)

    def _of_one(self, photo: Pixels) -> npt.NDArray[np.float32]:
        given = self._session.run(None, {self._name: photo[None].astype(self._kind)})
        probabilities: npt.NDArray[np.float32] = np.asarray(given[0], np.float32)[0]
        return probabilities


def _card(path: str | Path, session: Any) -> Card:
    try:
        return Card.model_validate_json(session.get_modelmeta().custom_metadata_map[NAME])
    except KeyError:
        raise TemperError(
            f"{path}: expected a model of this pipeline with its card among the metadata, received none; export it anew"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise TemperError(
            f"{path}: expected the card of a classifier inside, received another one: "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}; export it anew"
        ) from None


def _load(path: str | Path) -> Any:
    try:
        import onnxruntime  # noqa: PLC0415 (only this format needs it)
    except ImportError:
        raise missing_package(path, "onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # because each core has its own photo
    options.log_severity_level = 4  # problems are reported by errors
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the errors of ONNX Runtime have no other common class
        problem = " ".join(str(error).split())[:200]
        raise TemperError(
            f"{path}: expected a model that ONNX Runtime runs, received {problem}; export it again"
        ) from None


def open_model(path: str | Path) -> OnnxModel:
    """Opens an `.onnx` file.

    Raises:
        TemperError: the file is missing or damaged, has no card, or ONNX Runtime is not installed.
    """
    return OnnxModel(path)
