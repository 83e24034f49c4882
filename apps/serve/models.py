"""The models that are served: read from their files, and read again when a file is replaced.

A file is copied before it is opened, because LiteRT maps it into memory: writing over a mapped file would change the
model in the middle of a request, and cutting it off would end the server.
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
_State = tuple[int, int, int]  # of a file: when it was written, its size, its inode
PERIOD = 0.5  # seconds between two looks at the files


@dataclass(frozen=True)
class Model:
    """One version of a model, which never changes.

    Attributes:
        name: the file's, without its ending.
        version: the first digits of the SHA-256 of the file.
        finder: what finds the main object of a photo, for a model that was trained on crops; None: it sees whole ones.
    """

    name: str
    version: str
    runtime: Runtime
    finder: str | None = None

    @property
    def classes(self) -> list[str]:
        """In the order of the probabilities."""
        return self.runtime.card.classes

    @property
    def preparation(self) -> Way:
        """How a photo becomes its input."""
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

        Args:
            deadline: of `time.monotonic()`; it runs the model fifty times.
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
    loaded: _State | None  # of the file that the model comes from, or that was found damaged
    seen: _State | None  # at the last look


class Models:
    """All models that are served, by their names.

    Args:
        detector: what finds the main object, for models that were trained on crops; None: they see whole photos.
        said: what a line about a model that was taken up, or could not be, is given to, with its name and whether it
            was taken up.

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
        """The models as they are at this moment, in the order in which they were given."""
        return [served.model for served in self._served.values()]

    def watch(self, ended: threading.Event) -> None:
        """Looks at the files again and again until `ended` is set."""
        while not ended.wait(PERIOD):
            self.refresh()

    def refresh(self) -> None:
        """Takes up each file that has changed, once it is the same as at the last look: then it is no longer written.

        Where the new file cannot be read, the old model goes on, and a line says so, once.
        """
        for name, served in self._served.items():
            state = _state(served.path)
            settled, served.seen = state == served.seen, state
            if state == served.loaded or not settled:
                continue
            served.loaded = state
            try:
                served.model = self._load(served.path)
            except Exception as error:  # of whatever kind: nothing in a file may end the watch
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
        # Each thread opens the copy for itself, when it needs it first: the copy goes with the last use of the model.
        weakref.finalize(model.runtime, shutil.rmtree, folder, ignore_errors=True)
        return model


def require_names(paths: Sequence[Path]) -> None:
    """Refuses no models at all, and two of the same name.

    Raises:
        TemperError: that is what was given.
    """
    names = [path.stem for path in paths]
    if not names or len(set(names)) < len(names):
        raise TemperError(
            f"expected one or more models of different names, received {' '.join(map(str, paths)) or 'none'}; run "
            "dvc repro, and give --models models/export/*.tflite"
        )


def opened(path: Path, detector: DetectorChoice | None) -> Model:
    """The model of a file that nobody writes to as long as the model is used, tried on a grey image.

    Args:
        detector: as `Models`.

    Raises:
        TemperError: it is missing or damaged, or what it was cropped by cannot look at photos here.
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
    """All that a process needs to find main objects."""
    chosen = [str(weights), choice.input_size, list(choice.classes)]
    return json.dumps([name, crop.model_dump(mode="json"), chosen])


def _require_sound(path: Path, runtime: Runtime) -> None:
    """Runs one grey image, so that a model that does not fit its card answers no request."""
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
    """The usual place for what happens to models: the terminal or the log of whoever runs the server."""
    print(line, file=sys.stderr, flush=True)
