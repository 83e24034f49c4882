"""Each format of `export.formats`: its file, who writes and opens it, and how far it may differ from the classifier."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stages.export.artefact import Artefact, Request
from stages.export.formats import litert, onnx, page, saved_model
from stages.export.gate import Limit
from temper.settings.export import Export, Format

EXACT = 1e-4  # of float32: rounding in another order moves a probability by some 1e-6


@dataclass(frozen=True)
class Exporter:
    """How a format is made.

    Attributes:
        file: its name in models/export/.
        write: makes the file, or raises whatever the converter raises.
        open_artefact: opens it with the runtime that its users have.
        limit: how far it may differ from the classifier.
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
