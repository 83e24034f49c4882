"""The interface of every runtime, and the choice of the one for a file. Runtimes of other formats are not imported."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from temper.base.errors import TemperError
from temper.card import Card, Preparation
from temper.photos import Pixels

# The module for each ending. Only .keras needs Keras and its backend, which take seconds to import.
FORMATS = {".keras": "keras_model", ".tflite": "litert", ".onnx": "onnx"}


class Runtime(Protocol):
    """A model that is ready to predict. Each module of `FORMATS` has a function `open_model(path)` that returns one.

    Attributes:
        card: the model's card.
    """

    card: Card

    def probabilities(self, photos: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """The probabilities of prepared photos, float32 (n, classes), in the order of `card.classes`.

        Args:
            photos: at least one, each uint8 (height, width, 3), RGB, 0-255, of the size in the card.
        """


def open_model(path: str | Path) -> Runtime:
    """Opens the model in a `.keras`, `.tflite` or `.onnx` file.

    Raises:
        TemperError: the file is missing, damaged, of another format or has no card, or the package that runs its format
            is not installed.
    """
    module = FORMATS.get(Path(path).suffix.lower())
    if module is None:
        raise TemperError(f"{path}: expected a model whose name ends in {', '.join(FORMATS)}; give another file")
    if not Path(path).exists():
        raise TemperError(f"{path}: no such file; run dvc repro, or dvc pull")
    runtime: Runtime = importlib.import_module(f"temper.inference.runtimes.{module}").open_model(path)
    return runtime


def require_shape(path: str | Path, preparation: Preparation, sides: Sequence[object]) -> None:
    """Checks that the height, width and channels of a model's input are those in its card.

    Raises:
        TemperError: they differ, so the file has the card of another model.
    """
    expected = (preparation.height, preparation.width, 3)
    if tuple(sides) != expected:
        raise TemperError(
            f"{path}: expected a model for photos of {expected}, as its card says, received one for {tuple(sides)}; "
            "export it again"
        )


def missing_package(path: str | Path, package: str) -> TemperError:
    """The error to raise if the package that runs a format is not installed."""
    return TemperError(f"{path}: expected the package {package} to be installed, found none; pip install {package}")
