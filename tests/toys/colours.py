"""An exported classifier whose answers are easy to check: whether a photo is mostly red, green or blue."""

import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from temper.card import NAME, Backbone, Card, Crop, Preparation

CLASSES = ["red", "green", "blue <b>&"]  # the last one must stay text wherever it is shown


def write_colours(path: Path, classes: list[str] = CLASSES, side: int = 32) -> Path:
    """A `.tflite` file whose class number c is channel c, with its card; it takes any number of photos at once."""
    model = colours(side)
    model.export(path, format="litert", verbose=False)
    append_card(path, classes, side)
    return path


def write_colours_for_browsers(path: Path, classes: list[str] = CLASSES, side: int = 32) -> Path:
    """The same as the stage `export` writes it: for one photo at a time, which is all that browsers run."""
    from stages.export.artefact import Request  # noqa: PLC0415 (TensorFlow)
    from stages.export.formats import litert  # noqa: PLC0415

    litert.write(Request(colours(side), card(classes, side), np.zeros((0, side, side, 3), np.uint8)), path)
    return path


def colours(side: int) -> Any:
    """The classifier in Keras."""
    import keras  # noqa: PLC0415 (seconds; the photos and the classes need none of it)

    photos = keras.Input((side, side, 3))
    means = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(photos))
    head = keras.layers.Dense(3, activation="softmax")
    model = keras.Model(photos, head(means))
    head.set_weights([8 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)])
    model(np.zeros((1, side, side, 3), np.float32))
    return model


def append_card(path: Path, classes: list[str], side: int = 32, crop: Crop | None = None) -> None:
    """Appends a card to a LiteRT file without one."""
    with zipfile.ZipFile(path, "a") as behind:
        behind.writestr(NAME, card(classes, side, crop))


def card(classes: list[str], side: int, crop: Crop | None = None) -> str:
    """The card as JSON."""
    made = Card(
        classes=classes,
        preparation=Preparation(height=side, width=side, fit="crop", crop=crop),
        backbone=Backbone(name="means", arguments={}, weights="none", sha256=None),
        temperature=2.0,
    )
    return made.as_entry()[NAME]


def photo(label: int, number: int = 0, ending: str = ".jpg", side: int = 64) -> bytes:
    """A noisy photo, most of which is of one colour: class `label` of the classifier."""
    random = np.random.default_rng([label, number])
    pixels = random.integers(0, 120, (side, side, 3), np.uint8)
    pixels[..., label] += 100
    return bytes(cv2.imencode(ending, pixels[..., ::-1])[1])
