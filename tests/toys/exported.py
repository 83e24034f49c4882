"""Small classifiers of every format that `temper.inference.runtimes` opens, as `export` writes them."""

import importlib.util
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from temper import keras_files
from temper.card import NAME, Card
from temper.settings.export import NEEDS
from tests.toys.classifier import CARD, classifier

HAS_ONNX = all(importlib.util.find_spec(package) for package in NEEDS["onnx"])
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="needs the packages of `make onnx`")
WHOLE = CARD.model_copy(update={"preparation": CARD.preparation.model_copy(update={"crop": None})})


class Exported(dict[str, Path]):
    """Models by the ending of their names. A test that asks for one that cannot be made here is skipped."""

    def __missing__(self, ending: str) -> Path:
        pytest.skip(f"{ending} needs the packages of `make onnx`")


def write_exported(folder: Path, made: Card = WHOLE, model: keras.Model | None = None) -> dict[str, Path]:
    """The same classifier in every format, by the ending of its name; without ONNX where it is not installed."""
    model = model or classifier("tiny")
    paths = Exported({ending: folder / f"model{ending}" for ending in (".keras", ".tflite")})
    keras_files.save(model, paths[".keras"], made.as_entry())
    height, width = made.preparation.height, made.preparation.width
    photos = keras.Input((height, width, 3))
    plain = keras.Model(photos, model(photos, training=False))
    plain(np.zeros((1, height, width, 3), np.float32), training=False)  # an export needs a model that has been called
    plain.export(paths[".tflite"], format="litert", verbose=False)
    set_card(paths[".tflite"], made)
    if HAS_ONNX:
        paths[".onnx"] = folder / "model.onnx"
        plain.export(paths[".onnx"], format="onnx", verbose=False)
        set_card(paths[".onnx"], made)
    return paths


def set_card(path: Path, made: Card) -> None:
    """Replaces the card of a model of any format, or adds one."""
    text = made.as_entry()[NAME]
    if path.suffix == ".onnx":
        import onnx  # noqa: PLC0415 (half a second, and only for this format)

        model = onnx.load(path)
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {NAME: text})
        onnx.save(model, path)
        return
    content = path.read_bytes()
    if path.suffix == ".tflite" and zipfile.is_zipfile(path):  # what stands before the zip
        with zipfile.ZipFile(path) as behind:
            content = content[: min(entry.header_offset for entry in behind.infolist())]
        path.write_bytes(content)
    if path.suffix == ".tflite":
        with zipfile.ZipFile(path, "a") as behind:
            behind.writestr(NAME, text)
    else:
        keras_files.save(keras_files.load(path), path, made.as_entry())
