"""The formats of `export.formats`: file names, functions to write and open them, limits of how far they may differ."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stages.export.artefact import Artefact, Request
from stages.export.formats import litert, onnx, page, saved_model
from stages.export.gate import Limit
from temper.settings.export import Export, Format

EXACT = 1e-4  # allowed difference of a probability in float32, where another order of rounding moves it by some 1e-6


@dataclass(frozen=True)
class Exporter:
    """How a format is written, opened and checked.

    Attributes:
        file: the name of its file or folder in models/export/.
        write: writes the file; passes on whatever the converter raises.
        open_artefact: opens the file with the runtime that its users have.
        limit: how far its answers may differ from the classifier's.
    """

    file: str
    write: Callable[[Request, Path], None]
    open_artefact: Callable[[Path], Artefact]
    limit: Limit


def chosen(settings: Export) -> dict[Format, Exporter]:
    """The exporters of the chosen formats, in their order."""
    exact = Limit(difference=EXACT)
    half = Limit(difference=settings.float16_difference, key="export.float16_difference")
    coarse = Limit(accuracy_loss=settings.int8_accuracy_loss, key="export.int8_accuracy_loss")
    known: dict[Format, Exporter] = {
        "litert": Exporter("classifier.tflite", litert.write, litert.open_artefact, exact),
        "litert_float16": Exporter("classifier_float16.tflite", litert.write_float16, litert.open_artefact, half),
        "litert_int8": Exporter("classifier_int8.tflite", litert.write_int8, litert.open_artefact, coarse),
        "onnx": Exporter("classifier.onnx", onnx.write, onnx.open_artefact, exact),
        "saved_model": Exporter("classifier_saved_model", saved_model.write, saved_model.open_artefact, exact),
        "page": Exporter("page", page.write, page.open_artefact, exact),
    }
    return {name: known[name] for name in settings.formats}
