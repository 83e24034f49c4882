"""The solver `logistic`: exact logistic regression on all views of the training images, with C chosen on validation."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from dvclive import Live

from stages.warm_up.heads import write_linear
from temper.base.errors import TemperError
from temper.embeddings import Embeddings
from temper.folds import stratified_folds
from temper.logistic import Images, Linear, Trial, fold_trials, judged, log_losses
from temper.settings.warm_up import Settings
from temper.training.phases import Result

# With fewer than FEW validation images, C is chosen on FOLDS folds of the training images too, unless these are more
# than MANY.
FEW, MANY, FOLDS = 100, 2000, 5

Record = dict[str, float]
NAMES = {  # the names of the curves in metrics/warm_up/plots
    "accuracy": "train/accuracy",
    "loss": "train/loss",
    "val_accuracy": "validation/accuracy",
    "val_loss": "validation/loss",
    "C": "C",
    "judged_loss": "judged_loss",
}


@dataclass(frozen=True)
class Search:
    """The results of the values of C that were tried, in their order.

    Attributes:
        records: for each value of C: `accuracy` and `loss` on all views of train, `val_accuracy` and `val_loss` on
            validation, and `judged_loss`, by which C is chosen. With few validation images, `judged_loss` also covers
            folds of the training images.
        best: the index of the lowest `judged_loss`, the first one if several are equal.
        linear: the classifier for that value of C.
    """

    records: list[Record]
    best: int
    linear: Linear


def search(train: Images, validation: Images, classes: int, strengths: Sequence[float], seed: int) -> Search:
    """Fits the training images with one value of C after the other, until validation no longer improves."""
    trials = [Trial(train, validation.plain, validation.labels)]
    if len(validation.labels) < FEW and len(train.labels) <= MANY:
        trials += fold_trials(train, stratified_folds(train.labels, FOLDS, seed))
    records: list[Record] = []
    best, linear = 0, None
    for strength, (loss, found) in zip(strengths, judged(trials, classes, strengths), strict=False):
        records.append(measured(found[0], train, validation) | {"C": strength, "judged_loss": loss})
        if linear is None or loss < records[best]["judged_loss"]:
            best, linear = len(records) - 1, found[0]
    assert linear is not None  # the schema wants a value of C
    return Search(records, best, linear)


def measured(linear: Linear, train: Images, validation: Images) -> Record:
    """A classifier's accuracy and loss on all views of train and on validation."""
    record: Record = {}
    views = train.views.reshape(-1, train.views.shape[-1])
    for prefix, rows, labels in (
        ("", views, np.repeat(train.labels, train.views.shape[1])),
        ("val_", validation.plain, validation.labels),
    ):
        probabilities = linear.probabilities(rows)
        record[f"{prefix}accuracy"] = float((probabilities.argmax(axis=1) == labels).mean())
        record[f"{prefix}loss"] = float(log_losses(probabilities, labels).mean())
    return record


def read(split: str, classes: int) -> Images:
    """The embeddings of all views of a split.

    Raises:
        TemperError: the split has no images.
    """
    embeddings = Embeddings(split, classes)
    if not len(embeddings):
        raise TemperError(f"warm_up: expected {split} images, received none; raise normalize.{split}")
    return Images(embeddings.every_view(), embeddings.labels)


def train(head: keras.Model, settings: Settings, live: Live) -> Result:
    """Sets the head's weights to those of the best regression. In the result, each value of C counts as an epoch."""
    classes = head.output_shape[-1]
    images, validation = read("train", classes), read("validation", classes)
    found = search(images, validation, classes, settings.warm_up.C, settings.seed)
    write_linear(head, found.linear)
    live.step = 1
    for record in found.records:
        for name, value in record.items():
            live.log_metric(NAMES[name], value)
        live.next_step()
    return Result(found.records, found.best + 1, found.records[found.best])
