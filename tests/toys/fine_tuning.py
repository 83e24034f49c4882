"""A fine-tune as the stage does it, on packs in the working folder, which may be cut off."""

from pathlib import Path
from typing import Any

import keras

from stages.fine_tune.__main__ import material, plan, trained_model
from stages.fine_tune.depth import computing_in
from temper.batches import Batches
from temper.settings.fine_tune import Settings
from temper.training.phases import Result, fit, logged
from temper.training.unfinished import Unfinished


class Cut(Exception):
    """Stands for a kill."""


def trained(
    classifier: keras.Model, settings: Settings, folder: Path, cut_at: int | None = None
) -> tuple[Result, list[Any]]:
    """Trains a classifier on images or on stored activations; returns the result and the weights of all its layers.

    Args:
        classifier: already unfrozen; not pretrained.
        folder: where an unfinished run keeps its state.
        cut_at: the number of the epoch, from 0, before which the run is cut off.

    Raises:
        Cut: the run was cut off.
    """
    classes, precision = classifier.output_shape[-1], settings.fine_tune.precision
    of = material(classifier, classes, settings)

    def training(epoch: int) -> Batches:
        if epoch == cut_at:
            raise Cut
        return of.training(epoch)

    phase = plan(classifier, settings, False, of.labels, classes)
    folder.mkdir(exist_ok=True)
    with logged("fine_tune") as live, computing_in(of.model.get_layer("backbone"), precision):
        result = fit(trained_model(of.model, settings), phase, training, of.validation, Unfinished(folder), live)
    return result, classifier.get_weights()
