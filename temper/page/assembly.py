"""Assembles the page that needs no server: a folder for any web host, with its models and the runtime for them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from temper import card
from temper.page import runtime

_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent
LIST = "models.json"
SHARED = ("index.html", "script.js", "style.css", "theme.css")  # the server's page has these too
ALONE = ("answers.js", "occlusion.js", "preparation.js", "runtime_name.js", "worker.js")
_SERVICE_WORKER = "service_worker.js"


def assemble(folder: Path, models: Sequence[Path]) -> None:
    """Writes the page with these models into a folder; equal models give equal bytes.

    Args:
        folder: created if missing; it should be empty.
        models: LiteRT files that take one image, each with its card; the first one is the default.

    Raises:
        TemperError: a model has no card, or the runtime has not been fetched.
    """
    described = [_describe(path) for path in models]
    contents = {name: (_HERE / "shared" / name).read_bytes() for name in SHARED}
    contents |= {name: (_HERE / "alone" / name).read_bytes() for name in ALONE}
    contents |= {f"runtime/{name}": data for name, data in runtime.files().items()}
    contents |= {one["file"]: path.read_bytes() for one, path in zip(described, models, strict=True)}
    contents[LIST] = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()
    stored = {name: hashlib.sha256(contents[name]).hexdigest() for name in sorted(contents)}
    source = (_HERE / "alone" / _SERVICE_WORKER).read_text(encoding="utf-8")
    contents[_SERVICE_WORKER] = f"const STORED = {json.dumps(stored, indent=1)};\n\n{source}".encode()
    contents["LICENSE.txt"] = (_ROOT / "LICENSE").read_bytes()
    contents["NOTICE.txt"] = runtime.NOTICE.encode()
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def model_files(folder: Path) -> list[Path]:
    """The paths of a page's models, in order."""
    return [folder / one["file"] for one in json.loads((folder / LIST).read_text(encoding="utf-8"))]


def _describe(path: Path) -> dict[str, Any]:
    """A model's entry in the page's list: as in the server's `/models`, and its file, which is named by its content."""
    made = card.read(path)
    version = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return {
        "name": path.stem,
        "version": version,
        "file": f"models/{version}.tflite",
        "classes": made.classes,
        "backbone": made.backbone.name,
        "height": made.preparation.height,
        "width": made.preparation.width,
        "fit": made.preparation.fit,
        "cropped": made.preparation.crop is not None,
    }
