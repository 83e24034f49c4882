"""Runs the old and the new model on the same test images, those of the new run."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from apps.retrain.rule import Compared
from temper import card, crops, images, preparation, raw, tables
from temper.base.errors import TemperError
from temper.card import Card
from temper.comparing import revisions
from temper.inference import model_arguments
from temper.inference.models import BATCH
from temper.packs import Pack
from temper.parallel import ordered_map
from temper.photos import Pixels
from temper.predictor import Predictor

MODEL = model_arguments.DEFAULT
PACKS = "data/packed"

Names = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Old:
    """The model in production, and the images of its run.

    Attributes:
        version: such as "v0.2.0".
        model: the bytes of its file.
        photos: its table of images.
    """

    version: str
    model: bytes
    photos: pa.Table

    def ids(self, *splits: str) -> set[str]:
        """The image_ids of some splits, or of all if none is named."""
        rows = zip(self.photos["image_id"].to_pylist(), self.photos["split"].to_pylist(), strict=True)
        return {image_id for image_id, split in rows if not splits or split in splits}


def read_old(version: str, tag: str) -> Old:
    """The model of a version and its table of images, from DVC's cache or remote.

    Raises:
        TemperError: there is no such tag, or the files are not available.
    """
    revision = revisions.find(tag)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "images.parquet"
        copy.write_bytes(revision.read(images.PATH))
        try:
            photos = tables.read(copy, images.IMAGES)
        except TemperError as error:
            raise TemperError(str(error).replace(str(copy), f"{tag}: {images.PATH}")) from None
    return Old(version, revision.read(MODEL), photos)


@dataclass(frozen=True)
class Scored:
    """The predictions of both models on the test images on which they can be compared.

    Attributes:
        image_ids, class_names: the id and the class of each image, (N,).
        old_guesses, new_guesses: the class that each model predicts for each image, (N,).
        old_classes, new_classes: the classes that each model knows.
        trained_on: how many test images were left out because the old model was trained or validated on them.
    """

    image_ids: Names
    class_names: Names
    old_guesses: Names
    new_guesses: Names
    old_classes: Sequence[str]
    new_classes: Sequence[str]
    trained_on: int

    def compared(self, old_test: set[str]) -> list[Compared]:
        """The comparisons: on all images first, then on parts of them.

        Args:
            old_test: the image_ids of the old model's own test images.
        """
        known = np.isin(self.class_names, self.old_classes)
        seen = np.isin(self.image_ids, list(old_test))
        found = [self._on("all test images", np.ones(len(known), bool), True)]
        if set(self.old_classes) != set(self.new_classes):
            found.append(self._on("the test images of the classes that both know", known, True))
        if 0 < seen.sum() < len(seen):
            found.append(self._on("the test images that there were before", seen))
            found.append(self._on("the new test images", ~seen))
        return found

    def _on(self, name: str, rows: npt.NDArray[np.bool_], decides: bool = False) -> Compared:
        actual = self.class_names[rows]
        return Compared(name, self.old_guesses[rows] == actual, self.new_guesses[rows] == actual, decides)


class Scorer:
    """Predicts the classes of images of the new run with a model, preparing them as the model's card says.

    Raises:
        TemperError: the model's photos were cropped by another detector or rule, whose boxes the new run does not have.
    """

    def __init__(self, path: str | Path, name: str) -> None:
        self._predictor = Predictor(path)
        self.card: Card = self._predictor.card
        packed = card.read_preparation()
        self._is_packed = self.card.preparation == packed
        own, theirs = self.card.preparation.crop, packed.crop
        if own and own.model_copy(update={"margin": 0.0}) != (theirs and theirs.model_copy(update={"margin": 0.0})):
            raise TemperError(
                f"{name}: expected a model for whole photos or for photos cropped as {PACKS} is, received one for "
                f"crops of the detector {own.detector} by another rule; choose detect and pack.box as it was trained"
            )

    def guesses(self, image_ids: set[str]) -> dict[str, str]:
        """The predicted class of each of some images, by image_id."""
        names = self.card.classes
        found: dict[str, str] = {}
        prepared = self._packed(image_ids) if self._is_packed else self._from_bytes(image_ids)
        while some := list(islice(prepared, BATCH)):
            probabilities = self._predictor.probabilities([pixels for _, pixels in some])
            guesses = probabilities.argmax(axis=1).tolist()
            found |= {image_id: names[guess] for (image_id, _), guess in zip(some, guesses, strict=True)}
        return found

    def _packed(self, image_ids: set[str]) -> Iterator[tuple[str, Pixels]]:
        for split in images.SPLITS:
            pack = Pack(f"{PACKS}/{split}")
            for row, image_id in enumerate(pack.image_ids.tolist()):
                if image_id in image_ids:
                    yield image_id, pack.image(row)

    def _from_bytes(self, image_ids: set[str]) -> Iterator[tuple[str, Pixels]]:
        table = images.read()
        table = table.filter(np.isin(table["image_id"].to_pylist(), list(image_ids)))
        boxes = {}
        if self.card.preparation.crop:
            boxes = {image_id: one.box for image_id, one in crops.read().items() if one.used}

        def one(photo: tuple[bytes, str]) -> tuple[str, Pixels]:
            data, image_id = photo
            return image_id, preparation.prepare(data, self._predictor.preparation, boxes.get(image_id))

        yield from ordered_map(one, zip(raw.stream_images(table), table["image_id"].to_pylist(), strict=True))


def score(old: Old, new_photos: set[str]) -> tuple[Scored, dict[str, str]]:
    """Runs both models on the test images of the new run, and the old one also on the new photos.

    The caller must have chosen the device on which Keras computes.

    Args:
        new_photos: the image_ids of the new photos.

    Returns:
        The predictions of both models, and the class that the old model predicts for each image it has seen here, by
        image_id.
    """
    pack = Pack(f"{PACKS}/test")
    learned = old.ids("train", "validation")
    every = pack.image_ids.tolist()
    rows = [row for row, image_id in enumerate(every) if image_id not in learned]
    wanted = {every[row] for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "old.keras"
        copy.write_bytes(old.model)
        scorer = Scorer(copy, f"the model of {old.version}")
        of_old, old_classes = scorer.guesses(wanted | new_photos), scorer.card.classes
    scorer = Scorer(MODEL, MODEL)
    of_new, names = scorer.guesses(wanted), scorer.card.classes
    tested = Scored(
        np.array([every[row] for row in rows], str),
        np.array([names[label] for label in pack.labels[rows].tolist()], str),
        np.array([of_old[every[row]] for row in rows], str),
        np.array([of_new[every[row]] for row in rows], str),
        old_classes,
        names,
        len(every) - len(rows),
    )
    return tested, of_old
