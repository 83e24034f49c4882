"""Models at work on many photos: read and decoded on threads beside the models, and answered in order.

Memory stays bounded however many photos there are: none is kept longer than its batch.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from temper import preparation
from temper.base.errors import TemperError
from temper.base.machine import cores
from temper.card import Crop
from temper.comparing.ensembles import differing
from temper.headers import memory_to_decode
from temper.inference.named_photos import Encoded
from temper.parallel import ordered_map
from temper.photos import BadPhoto, Box, Pixels
from temper.predictor import Predictor

BATCH = 32  # photos that a model is given at a time; while it computes, the threads prepare twice as many
_BESIDE = 2 * BATCH


class Finder(Protocol):
    """Finds the main object of a photo; `temper.inference.cropping.MainObjectFinder` is one."""

    def find(self, data: bytes) -> Box | None:
        """The main object of an encoded photo, `None` for the whole photo; called by several threads at once.

        Raises:
            BadPhoto: the bytes are no usable image.
        """


FinderOf = Callable[[str, Crop], Finder]  # of a model's path and card


@dataclass(frozen=True)
class Prepared:
    """A photo as the models take it.

    Attributes:
        inputs: one for each way in which the models are fed; none where the photo cannot be used.
        problem: why it cannot be used.
    """

    name: str
    inputs: Sequence[Pixels] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Answer:
    """What the models say of one photo.

    Attributes:
        of_models: float32 (models, classes), the probabilities of each model; `None`: the photo cannot be used.
        pixels: the photo as the first model takes it; `None` as above.
        problem: why it cannot be used.
    """

    name: str
    of_models: npt.NDArray[np.float32] | None = None
    pixels: Pixels | None = None
    problem: str | None = None


class Models:
    """Trained models that know the same classes; each is fed as its own card says.

    Attributes:
        classes: in the order of the first model, in which all answers are given.
        predictors: by the path of each model.

    Raises:
        TemperError: a model cannot be opened, knows other classes than the first, or is there twice.
    """

    def __init__(self, paths: Sequence[str], finder_of: FinderOf | None, calibrated: bool = False) -> None:
        """Opens the models.

        Args:
            finder_of: for models that were trained on photos cropped to their main object; `None`: they see whole
                photos, too.
            calibrated: whether the probabilities of each are scaled by the temperature of its card.
        """
        if len(set(paths)) < len(paths):
            raise TemperError(f"expected different models, received {', '.join(paths)}")
        self.predictors = {path: Predictor(path) for path in paths}
        first = self.predictors[paths[0]].card.classes
        self.classes, self._calibrated = first, calibrated
        self._orders = {path: _order(paths[0], first, path, one.card.classes) for path, one in self.predictors.items()}
        self._ways: list[tuple[preparation.Preparation, Finder | None]] = []
        self._way_of: dict[str, int] = {}  # models that are fed alike share their inputs
        known: dict[str, int] = {}
        for path, predictor in self.predictors.items():
            made = predictor.card.preparation
            key = made.model_dump_json()
            if key not in known:
                known[key] = len(self._ways)
                finder = finder_of(path, made.crop) if finder_of and made.crop else None
                self._ways.append((predictor.preparation, finder))
            self._way_of[path] = known[key]

    def prepare(self, photo: Encoded) -> Prepared:
        """A photo in all ways in which the models are fed; OpenCV must be at one thread where it is cropped."""
        name = photo.photo.name
        if photo.problem:
            return Prepared(name, problem=photo.problem)
        try:
            inputs = [
                preparation.prepare(photo.data, way, finder.find(photo.data) if finder else None)
                for way, finder in self._ways
            ]
        except (BadPhoto, MemoryError) as reason:
            return Prepared(name, problem=f"expected a photo, received {reason}")
        return Prepared(name, inputs)

    def answer(self, photos: Sequence[Prepared]) -> Iterator[Answer]:
        """What the models say of each photo, in order."""
        usable = [photo for photo in photos if photo.problem is None]
        of_all = iter(self._probabilities(usable) if usable else ())
        for photo in photos:
            if photo.problem is None:
                yield Answer(photo.name, next(of_all), photo.inputs[0])
            else:
                yield Answer(photo.name, problem=photo.problem)

    def _probabilities(self, photos: Sequence[Prepared]) -> npt.NDArray[np.float32]:
        """Float32 (n, models, classes)."""
        found = [
            predictor.probabilities([photo.inputs[self._way_of[path]] for photo in photos], self._calibrated)
            for path, predictor in self.predictors.items()
        ]
        return np.stack([one[:, self._orders[path]] for path, one in zip(self.predictors, found, strict=True)], axis=1)


def answers(models: Models, photos: Iterable[Encoded], threads: int | None = None) -> Iterator[Answer]:
    """What the models say of each photo, in order, while the next ones are decoded.

    Args:
        photos: read as a stream.
        threads: that decode; `None` is one for each core.
    """
    threads = threads or cores()
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)  # ours are enough, and a detector's bits depend on it
    try:
        prepared = ordered_map(
            models.prepare,
            photos,
            threads,
            ahead=math.ceil(_BESIDE / threads),
            weigh=lambda photo: memory_to_decode(photo.data),
        )
        while some := list(islice(prepared, BATCH)):
            yield from models.answer(some)
    finally:
        cv2.setNumThreads(before)


def _order(first: str, classes: Sequence[str], path: str, others: Sequence[str]) -> list[int]:
    """Where the classes of the first model stand in the list of another one.

    Raises:
        TemperError: they are not the same classes.
    """
    found = differing(first, classes, path, others)
    if found:
        raise TemperError(f"{first} and {path}: expected models of the same classes, received others: {found}")
    places = {name: number for number, name in enumerate(others)}
    return [places[name] for name in classes]
