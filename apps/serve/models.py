"""The models that are served. They are loaded from their files, and loaded again when a file is replaced.

A file is copied before it is opened, because LiteRT maps it into memory: overwriting a mapped file would change the
model in the middle of a request, and truncating it would crash the server.
"""

import hashlib
import json
import shutil
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from apps.serve.copies import Copies
from apps.serve.decoder import Way
from apps.serve.limits import Refusal
from temper.base.errors import TemperError
from temper.card import Crop
from temper.explanations.occlusion import occlusion_map
from temper.inference.cropping import DetectorChoice, MainObjectFinder
from temper.inference.runtimes.opening import Runtime, open_model
from temper.measures import calibration
from temper.photos import Pixels

Probabilities = npt.NDArray[np.float32]
_State = tuple[int, int, int]  # of a file: modification time in ns, size in bytes, inode
PERIOD = 0.5  # seconds between two checks of the files


@dataclass(frozen=True)
class Model:
    """A version of a model, which never changes.

    Attributes:
        name: the name of its file, without the extension.
        version: the first 12 hex digits of the file's SHA-256.
        runtime: the opened model.
        finder: describes how to find the main object of a photo, for a model that was trained on crops; None: the model
            gets whole photos.
    """

    name: str
    version: str
    runtime: Runtime
    finder: str | None = None

    @property
    def classes(self) -> list[str]:
        """The class names, in the order of the probabilities."""
        return self.runtime.card.classes

    @property
    def preparation(self) -> Way:
        """How a photo becomes the model's input."""
        made = self.runtime.card.preparation
        margin = made.crop.margin if made.crop and self.finder else 0.0
        return Way(made.height, made.width, made.fit, margin, self.finder)

    def predict(self, pixels: Pixels, calibrated: bool) -> Probabilities:
        """The probabilities of a prepared photo, float32 (classes,)."""
        found = self.runtime.probabilities([pixels])
        if calibrated:
            found = calibration.scale(found, self.runtime.card.temperature).astype(np.float32)
        of_photo: Probabilities = found[0]
        return of_photo

    def look(self, pixels: Pixels, deadline: float) -> npt.NDArray[np.float32]:
        """Where the model looks in a prepared photo, float32 (GRID, GRID); see `occlusion_map`.

        This runs the model fifty times.

        Args:
            deadline: a time of `time.monotonic()`.

        Raises:
            Refusal: the deadline has passed.
        """

        def predict(images: npt.NDArray[np.uint8]) -> Probabilities:
            found = []
            for image in images:
                if time.monotonic() > deadline:
                    raise Refusal(504, "the server has too much to do to find out where the model looked: try again")
                found.append(self.runtime.probabilities([image])[0])
            return np.stack(found)

        return occlusion_map(predict, pixels)


@dataclass
class _Served:
    path: Path
    model: Model
    loaded: _State | None  # of the file when it was last loaded, successfully or not
    seen: _State | None  # of the file at the last check


class Models:
    """All models that are served, by their names.

    Args:
        paths: the files of the models.
        detector: the detector of the main object, for models that were trained on crops; None: they get whole photos.
        said: called when a file was replaced, with the model's name, whether the new file was loaded, and a line for
            the log.

    Raises:
        TemperError: a file is missing or damaged, or two have the same name.
    """

    def __init__(
        self, paths: Sequence[Path], detector: DetectorChoice | None, said: Callable[[str, bool, str], None]
    ) -> None:
        require_names(paths)
        self._detector = detector
        self._said = said
        self._copies = Copies()
        self._served = {}
        for path in paths:
            state = _state(path)
            self._served[path.stem] = _Served(path, self._load(path), state, state)

    def now(self) -> list[Model]:
        """The current versions of the models, in the order in which they were given."""
        return [served.model for served in self._served.values()]

    def watch(self, ended: threading.Event) -> None:
        """Checks the files again and again until `ended` is set."""
        while not ended.wait(PERIOD):
            self.refresh()

    def refresh(self) -> None:
        """Loads each changed file once two checks in a row find it the same, because it is then completely written.

        If the new file cannot be read, the old model stays in use, and a line says so once.
        """
        for name, served in self._served.items():
            state = _state(served.path)
            settled, served.seen = state == served.seen, state
            if state == served.loaded or not settled:
                continue
            served.loaded = state
            try:
                served.model = self._load(served.path)
            except Exception as error:  # of any class: no file may end the watching
                problem = str(error) if isinstance(error, TemperError) else f"{served.path}: {type(error).__name__}"
                self._said(name, False, f"{problem}; the model of before, version {served.model.version}, goes on")
            else:
                self._said(name, True, f"{served.path}: replaced, now version {served.model.version}")

    def close(self) -> None:
        """Removes the copies of the files."""
        self._copies.close()

    def _load(self, path: Path) -> Model:
        folder = Path(tempfile.mkdtemp(dir=self._copies.folder))
        copy = folder / path.name
        try:
            shutil.copyfile(path, copy)
            model = opened(copy, self._detector)
        except (TemperError, OSError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            problem = f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)
            raise TemperError(problem.replace(str(copy), str(path))) from None
        # Each thread opens the copy itself when it first needs it, so the copy is removed after the model's last use.
        weakref.finalize(model.runtime, shutil.rmtree, folder, ignore_errors=True)
        return model


def require_names(paths: Sequence[Path]) -> None:
    """Refuses an empty list of models, and models with the same name.

    Raises:
        TemperError: there are no models, or two have the same name.
    """
    names = [path.stem for path in paths]
    if not names or len(set(names)) < len(names):
        raise TemperError(
            f"expected one or more models of different names, received {' '.join(map(str, paths)) or 'none'}; run "
            "dvc repro, and give --models models/export/*.tflite"
        )


def opened(path: Path, detector: DetectorChoice | None) -> Model:
    """Opens a model and tries it on a grey image. Nobody may write to the file as long as the model is used.

    Args:
        detector: as for `Models`.

    Raises:
        TemperError: the file is missing or damaged, or the detector by which its photos were cropped cannot run here.
    """
    runtime = open_model(path)
    with path.open("rb") as file:
        version = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    _require_sound(path, runtime)
    crop, finder = runtime.card.preparation.crop, None
    if crop and detector:
        finder = finder_text(path.stem, crop, MainObjectFinder(path, crop, detector).weights, detector)
    return Model(path.stem, version, runtime, finder)


def finder_text(name: str, crop: Crop, weights: Path, choice: DetectorChoice) -> str:
    """A JSON text with all that a decoder process needs to find main objects."""
    chosen = [str(weights), choice.input_size, list(choice.classes)]
    return json.dumps([name, crop.model_dump(mode="json"), chosen])


def _require_sound(path: Path, runtime: Runtime) -> None:
    """Runs the model on a grey image, so that a model that does not fit its card is refused before any request."""
    made = runtime.card.preparation
    found = runtime.probabilities([np.full((made.height, made.width, 3), 128, np.uint8)])
    if found.shape != (1, len(runtime.card.classes)) or not np.isfinite(found).all():
        raise TemperError(
            f"{path}: expected a probability for each of the {len(runtime.card.classes)} classes of its card, received "
            f"{found.shape[-1]} values; export it again"
        )


def _state(path: Path) -> _State | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def print_line(name: str, taken_up: bool, line: str) -> None:
    """Prints a line about a model to stderr, the terminal or log of the server."""
    print(line, file=sys.stderr, flush=True)
