"""A page for any web host: the classifier runs in the visitor's browser, also offline.

The comparison with the classifier uses the LiteRT model inside the page, and LiteRT's runtime for Python.
"""

import tempfile
from pathlib import Path

from stages.export.artefact import Artefact, Request
from stages.export.formats import litert
from temper.page import assembly


def write(request: Request, path: Path) -> None:
    """Writes the folder of the page, with the classifier in float32."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "classifier.tflite"
        litert.write(request, model)
        assembly.assemble(path, [model])


def open_artefact(path: Path) -> Artefact:
    """Opens the model of the page."""
    (model,) = assembly.model_files(path)
    return litert.open_artefact(model)
