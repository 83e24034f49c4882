"""Lets the old model predict new test images, so that both models are compared on the whole new test set."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from apps.report.edits import read_params
from temper import card, images, tables
from temper.base import gpus
from temper.base.errors import TemperError
from temper.comparing.revisions import Member, Revision
from temper.measures.calibration import Probabilities
from temper.packs import Pack
from temper.predictor import Predictor
from temper.views import View, averaged, seen, views

MODEL, PACKED = "models/fine_tune.keras", "data/packed/test"
BATCH = 32


class NotScored(TemperError):
    """The old model cannot predict the new images, or must not."""


def unseen(old: Revision, member: Member, rows: Sequence[int]) -> list[int]:
    """Those rows of the new test images that were in no split of the old revision.

    With another seed or other shares, the old model may have been trained on an image that is now a test image. Its
    prediction for such an image would make it look too good.

    Args:
        member: the new revision's predictions.
        rows: rows of its test images.

    Raises:
        TemperError: the old table of images is not available.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "images.parquet"
        copy.write_bytes(old.read(images.PATH))
        table = tables.read(copy, images.IMAGES, ["image_id", "split"])
    had = set(table.filter(pc.not_equal(table["split"], "unlabelled"))["image_id"].to_pylist())
    return [row for row in rows if member.test.image_ids[row] not in had]


def score(old: Revision, new: Revision, before: Member, after: Member, rows: Sequence[int]) -> Probabilities:
    """The old model's probabilities for some test images of the new revision, with its own test-time augmentation.

    Args:
        before: the old revision's predictions, whose classes the model must have.
        after: the new revision's predictions.
        rows: rows of the new revision's test images.

    Returns:
        float32 (rows, classes of the old model in its order).

    Raises:
        NotScored: the new images are not prepared as for the training of the old model, or its classes differ from
            those of its predictions.
        TemperError: the model or the packed images are not available.
    """
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / Path(MODEL).name
        model.write_bytes(old.read(MODEL))
        prepared = Path(folder) / Path(card.PACKED).name
        prepared.write_bytes(new.read(card.PACKED))
        made = card.read(model)
        if made.preparation != card.read_preparation(prepared):
            raise NotScored(f"the images of {new.name} are prepared otherwise than the model of {old.name} was trained")
        if made.classes != before.classes:
            raise NotScored(f"{MODEL} of {old.name} has other classes than its predictions")
        pack = Pack(new.get(PACKED, Path(folder)))
        place = {image_id: number for number, image_id in enumerate(pack.image_ids.tolist())}
        wanted = np.array([place[after.test.image_ids[row]] for row in rows])
        gpus.hide()  # a report has not leased a GPU, and Keras would take the memory of GPUs that stages use
        classifier = Predictor(model)

        def of_view(view: View) -> Probabilities:
            parts = [seen(pack.images(wanted[at : at + BATCH]), view) for at in range(0, len(wanted), BATCH)]
            return np.concatenate([classifier.probabilities(list(part)) for part in parts])

        return averaged(of_view, _views(old))


def _views(old: Revision) -> list[View]:
    """The views of the old revision's `evaluate.test_time_augmentation`."""
    section = read_params(old).get("evaluate")
    chosen = section.get("test_time_augmentation", "none") if isinstance(section, dict) else "none"
    return views(chosen) if isinstance(chosen, int) else views(1, mirrored=chosen == "flip")
