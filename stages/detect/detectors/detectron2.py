"""`detect.detector: detectron2`: any detector of Detectron2's model zoo (https://github.com/facebookresearch/detectron2).

PyTorch is not installed in TensorFlow's environment. A worker process in an environment of its own runs the model, on a
GPU if there is one, and exchanges files with this process (detectron2_worker.py).
"""

import hashlib
import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from stages.detect import detector, unseen
from stages.detect.detector import Photo
from stages.detect.detectors import detectron2_worker
from temper import photos
from temper.base import gpus, memory
from temper.base.errors import TemperError
from temper.base.machine import cores
from temper.base.paths import repository, scratch
from temper.detections import Boxes
from temper.network.downloads import obtain
from temper.settings.base import Count, Sha256, Share, Text
from temper.settings.detect import EngineSettings

CHUNK = 32  # photos per message
AHEAD = 2  # messages that wait while the worker processes one
ROOT = Path(__file__).parent.parent.parent.parent
INSTALL = (
    "python3 -m venv {0} && {0}/bin/pip install -r requirements-detectron2.txt && "
    "{0}/bin/pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2.git"
)
PACKAGES = ("detectron2", "torch", "torchvision", "opencv-python-headless", "pillow")


class Settings(EngineSettings):
    """`detector: detectron2`: any detector of its model zoo, in an environment of its own."""

    detector: Literal["detectron2"]
    config: Text = Field(
        "COCO-Detection/faster_rcnn_R_101_FPN_3x",
        description="the name of the network's configuration in Detectron2's model zoo",
    )
    weights: Text = Field(
        "zoo", description="zoo: the published weights of `config`; or the address or path of a weights file"
    )
    sha256: Sha256 | None = Field(
        None, description="the expected SHA-256 checksum of weights that are not from the zoo; null with zoo"
    )
    device: Text = Field("auto", description="where it computes: auto (a GPU if there is one), cpu, cuda, cuda:1, ...")
    batch: Count = Field(4, description="the number of photos in a batch")
    floor: Share = Field(0.05, description="boxes with a lower score are not stored, 0 to 1")
    environment: Text = Field(
        ".venv-detectron2", description="the folder of the Python environment in which Detectron2 is installed"
    )

    @model_validator(mode="after")
    def _weights_are_known_by_their_checksum(self) -> "Settings":
        if (self.weights == "zoo") != (self.sha256 is None):
            raise ValueError(f"expected sha256 with weights of your own and none with zoo, received {self.sha256}")
        return self


def find_boxes(images: pa.Table, settings: Settings) -> Iterator[tuple[str, Boxes]]:
    """All boxes of each image above the floor, from Detectron2 or from the cache."""
    return unseen.find_boxes(images, "detectron2", partial(Detectron2Detector, settings), settings)


class Detectron2Detector:
    """A model of Detectron2, run by a worker in another environment.

    Raises:
        TemperError: the environment is missing or lacks a package, or the weights are missing.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._worker: Worker | None = None
        self._python = repository() / settings.environment / "bin/python"
        versions = self._versions()
        self._weights = (
            None if settings.weights == "zoo" else obtain(settings.weights, str(settings.sha256), "detect.weights")
        )
        files = (detectron2_worker.__file__, photos.__file__)
        code = [detector.code_that_computes(Path(path).read_text(encoding="utf-8")) for path in files]
        model = [settings.config, settings.sha256 or "zoo", settings.floor]
        self.key = hashlib.sha256(json.dumps([model, versions, code], sort_keys=True).encode()).hexdigest()[:16]

    def _versions(self) -> dict[str, str]:
        """The versions of the packages that compute the boxes."""
        code = (
            f"import importlib.metadata, json; print(json.dumps([importlib.metadata.version(p) for p in {PACKAGES}]))"
        )
        try:
            done = subprocess.run([self._python, "-c", code], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            place = self._settings.environment
            raise TemperError(
                f"detect: detectron2: expected an environment with Detectron2 in {place}, found none; "
                f"make it: {INSTALL.format(place)}"
            ) from None
        return dict(zip(PACKAGES, json.loads(done.stdout), strict=True))

    def detect(self, photos: Iterator[Photo]) -> Iterator[tuple[str, Boxes]]:
        """The boxes of each photo, in order. While the model runs, the next photos are read and decoded."""
        if self._worker is None:
            settings, (kind, _, number) = self._settings, self._settings.device.partition(":")
            ours = settings.engine == "local" and kind in ("auto", "cuda")  # with `engine: ray`, Ray assigns the GPUs
            if ours and gpus.lease(number=number if number.isdecimal() else None):
                settings = settings.model_copy(update={"device": kind})  # the worker sees only the leased GPU
            self._worker = Worker(self._python, settings, self._weights)
        whole = False
        try:
            waiting: deque[list[Photo]] = deque()
            while chunk := list(islice(photos, CHUNK)):
                self._worker.send([photo.data for photo in chunk])
                waiting.append(chunk)
                if len(waiting) > AHEAD:
                    yield from self._worker.receive(waiting.popleft())
            while waiting:
                yield from self._worker.receive(waiting.popleft())
            whole = True
        finally:
            if not whole:  # answers to these photos may still come, and must not be taken for those to later ones
                self.close()

    def close(self) -> None:
        """Ends the worker."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None


class Worker:
    """The worker process, and the messages to and from it."""

    def __init__(self, python: Path, settings: Settings, weights: Path | None) -> None:
        folder = Path(tempfile.mkdtemp(dir=scratch("messages").resolve(), prefix="detectron2-"))
        self._folder, self._sent, self._received = folder, 0, 0
        values = settings.model_dump(include={"config", "device", "batch", "floor"})
        values |= {"weights": weights and str(weights.resolve()), "threads": cores()}
        (folder / "settings.json").write_text(json.dumps(values), encoding="utf-8")
        self._log = folder / "log.txt"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [python.absolute(), "-m", "stages.detect.detectors.detectron2_worker", str(folder)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def send(self, data: list[bytes]) -> None:
        """Sends encoded photos to the worker."""
        arrays = {str(place): np.frombuffer(image, np.uint8) for place, image in enumerate(data)}
        detectron2_worker.send(self._folder, "photos", self._sent, arrays)
        self._sent += 1

    def receive(self, chunk: list[Photo]) -> Iterator[tuple[str, Boxes]]:
        """Waits for the answer to the oldest unanswered message, and yields the boxes of its photos (`chunk`).

        Raises:
            TemperError: the worker has ended, or a photo cannot be decoded.
        """
        while (answer := detectron2_worker.receive(self._folder, "boxes", self._received)) is None:
            if self._process.poll() is not None:
                raise TemperError(self._last_words())
            time.sleep(detectron2_worker.POLL)
        self._received += 1
        ends = np.cumsum(answer["counts"])
        names = answer["names"].tolist()
        problems = json.loads(str(answer["problems"]))
        for place, (photo, start, end) in enumerate(zip(chunk, ends - answer["counts"], ends, strict=True)):
            if str(place) in problems:
                raise detector.undecodable(photo, problems[str(place)])
            classes = [names[number] for number in answer["classes"][start:end]]
            yield photo.image_id, Boxes(answer["corners"][start:end], answer["scores"][start:end], classes)

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        code = self._process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        lacks = [line for line in lines if memory.says_so(line)]
        last = lacks[-1:] or (lines[-1:] if code > 0 else [])
        said = f", saying: {last[0].strip()}" if last else ""
        again = "lower detect.batch or free some memory, and run again to go on" if lacks else "run again to go on"
        if code == -signal.SIGKILL:
            again += ", with a lower detect.batch if it was the kernel, for want of memory"
        return f"detect: detectron2: its process {how}{said}; what it found before is kept: {again}"

    def stop(self) -> None:
        """Ends the worker process and removes the messages."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder)
