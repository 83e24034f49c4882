"""Runs models on many photos: other threads read and decode the photos while the models compute; results stay in order.

Memory stays bounded however many photos there are: no photo is kept longer than its batch.
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

BATCH = 32  # photos per batch; while a model computes, the threads prepare twice as many
_BESIDE = 2 * BATCH


class Finder(Protocol):
    """Finds the main object of a photo; `temper.inference.cropping.MainObjectFinder` is one."""

    def find(self, data: bytes) -> Box | None:
        """The main object of an encoded photo, `None` for the whole photo; called by several threads at once.

        Raises:
            BadPhoto: the bytes are not a usable image.
        """


FinderOf = Callable[[str, Crop], Finder]  # makes the finder for a model, from its path and its card's `Crop`


@dataclass(frozen=True)
class Prepared:
    """A photo as input for the models.

    Attributes:
        name: the photo's name in answers.
        inputs: one for each different preparation among the models; empty if the photo cannot be used.
        problem: why it cannot be used; `None` if it can.
    """

    name: str
    inputs: Sequence[Pixels] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Answer:
    """The models' predictions for one photo.

    Attributes:
        name: the photo's name.
        of_models: float32 (models, classes), the probabilities of each model; `None` if the photo cannot be used.
        pixels: the photo as the first model's input; `None` if it cannot be used.
        problem: why it cannot be used; `None` if it can.
    """

    name: str
    of_models: npt.NDArray[np.float32] | None = None
    pixels: Pixels | None = None
    problem: str | None = None


class Models:
    """Trained models with the same classes; photos are prepared for each as its own card says.

    Attributes:
        classes: the classes in the order of the first model, which is the order in all answers.
        predictors: the models, by path.

    Raises:
        TemperError: a model cannot be opened, has other classes than the first, or is listed twice.
    """

    def __init__(self, paths: Sequence[str], finder_of: FinderOf | None, calibrated: bool = False) -> None:
        """Opens the models.

        Args:
            finder_of: makes the finder of the main object, for models that were trained on cropped photos; `None`: they
                get whole photos too.
            calibrated: whether to scale the probabilities of each model by the temperature in its card.
        """
        if len(set(paths)) < len(paths):
            raise TemperError(f"expected different models, received {', '.join(paths)}")
        self.predictors = {path: Predictor(path) for path in paths}
        first = self.predictors[paths[0]].card.classes
        self.classes, self._calibrated = first, calibrated
        self._orders = {path: _order(paths[0], first, path, one.card.classes) for path, one in self.predictors.items()}
        self._ways: list[tuple[preparation.Preparation, Finder | None]] = []
        self._way_of: dict[str, int] = {}  # models with the same preparation share their inputs
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
        """Prepares a photo in each way that the models need. If photos are cropped, OpenCV must use one thread."""
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
        """Yields the models' predictions for each photo, in order."""
        usable = [photo for photo in photos if photo.problem is None]
        of_all = iter(self._probabilities(usable) if usable else ())
        for photo in photos:
            if photo.problem is None:
                yield Answer(photo.name, next(of_all), photo.inputs[0])
            else:
                yield Answer(photo.name, problem=photo.problem)

    def _probabilities(self, photos: Sequence[Prepared]) -> npt.NDArray[np.float32]:
        """The probabilities of all models for n photos, float32 (n, models, classes)."""
        found = [
            predictor.probabilities([photo.inputs[self._way_of[path]] for photo in photos], self._calibrated)
            for path, predictor in self.predictors.items()
        ]
        return np.stack([one[:, self._orders[path]] for path, one in zip(self.predictors, found, strict=True)], axis=1)


def answers(models: Models, photos: Iterable[Encoded], threads: int | None = None) -> Iterator[Answer]:
    """Yields the models' predictions for each photo, in order, while the next photos are decoded.

    Args:
        photos: read as a stream.
        threads: the number of threads that decode; `None`: one per core.
    """
    threads = threads or cores()
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)  # our own threads are enough, and the bits of a detector's results depend on it
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
    """For each class of the first model, its index in another model's list of classes.

    Raises:
        TemperError: the models do not have the same classes.
    """
    found = differing(first, classes, path, others)
    if found:
        raise TemperError(f"{first} and {path}: expected models of the same classes, received others: {found}")
    places = {name: number for number, name in enumerate(others)}
    return [places[name] for name in classes]
