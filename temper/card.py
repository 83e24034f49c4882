"""The card: what a model's users need to know about it, such as its classes and how photos are prepared (law 3).

The card is stored inside the model's `.keras` file. Code that predicts, evaluates, exports or serves reads the card,
never the current params.yaml. Reading it needs no Keras.
"""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from temper.base.errors import TemperError

NAME = "card.json"  # the entry in the .keras file, which is a zip
PACKED = "data/packed/preparation.json"  # how `pack` prepared the photos

Model = TypeVar("Model", bound="Part")


class Part(BaseModel):
    """A part of the card."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def as_entry(self) -> dict[str, str]:
        """The name and content of the card's entry in the .keras file, for `keras_files.save`.

        Keys are sorted, so that equal mappings give equal bytes whatever the order of their keys in params.yaml.
        """
        return {NAME: json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)}


class Crop(Part):
    """How photos are cropped to their main object."""

    detector: str
    sha256: str | None  # the checksum of the detector's weights; None if it has none
    margin: float  # added on each side of the box, as a fraction of its width and height
    box: dict[str, Any]  # which of the detected objects is the main one: the settings `pack.box`


class Preparation(Part):
    """How a photo becomes the model's input: upright RGB, 0-255, of this size."""

    height: int  # pixels
    width: int
    fit: Literal["stretch", "crop", "pad"]
    crop: Crop | None  # None: the whole photo is used


class Backbone(Part):
    """Where the backbone comes from."""

    name: str
    arguments: dict[str, Any]
    weights: str  # imagenet, none, or the name of a weights file
    sha256: str | None  # the checksum of the weights file; None if there is no such file
    # The backend it was trained with. It needs none in particular: any backend runs it. The value is here so that a
    # change of it reaches the stages after `backbone`. Left out if it is the default.
    backend: str = Field("tensorflow", exclude_if=lambda backend: backend == "tensorflow")
    # `backbone.devices`: the number of devices over which each batch was spread; here for the same reason.
    devices: int | Literal["all"] = Field(1, exclude_if=lambda devices: devices == 1)

    @property
    def pretrained(self) -> bool:
        """Whether the backbone starts from published weights, so that its BatchNorm statistics are worth keeping."""
        return self.weights != "none"


class Card(Part):
    """The card of a classifier."""

    classes: list[str]  # in the order of the probabilities
    preparation: Preparation
    backbone: Backbone
    temperature: float = 1.0  # for `calibration.scale`, which calibrates the probabilities; 1 changes nothing


def read(path: str | Path) -> Card:
    """Reads the card of a classifier.

    Raises:
        TemperError: the file is missing, is not a model of this pipeline, or has no card.
    """
    return _read(Card, path)


def read_backbone(path: str | Path) -> Backbone:
    """The card of models/backbone.keras."""
    return _read(Backbone, path)


def read_preparation(path: str | Path = PACKED) -> Preparation:
    """Reads how `pack` prepared the photos.

    Raises:
        TemperError: the file is missing or damaged.
    """
    try:
        return Preparation.model_validate_json(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        problem = str(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
        raise TemperError(
            f"{path}: expected a description of how the photos were packed, received {problem}; run dvc repro pack"
        ) from None


def _read(kind: type[Model], path: str | Path) -> Model:
    try:
        with zipfile.ZipFile(path) as file:
            return kind.model_validate(json.loads(file.read(NAME)))
    except FileNotFoundError:
        raise TemperError(f"{path}: no such file; run dvc repro, or dvc pull") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        expected = "classifier" if kind is Card else "backbone"
        raise TemperError(
            f"{path}: expected the card of a {expected} inside, received another one: "
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError, OSError) as error:
        # RuntimeError: zipfile raises it for a damaged zip, json (as RecursionError) for JSON that is nested too deeply
        raise TemperError(
            f"{path}: expected a model of this pipeline with its card inside, received "
            f"{type(error).__name__}: {error}; train it anew"
        ) from None
