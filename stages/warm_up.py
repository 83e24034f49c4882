"""warm_up: embeddings and the backbone -> models/warm_up.keras, metrics/warm_up/.

The first phase: a new head is trained on the frozen backbone's embeddings, where an epoch costs next to nothing. It
saves the whole classifier.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin(with_keras=True)  # before anything heavy is imported

from functools import partial
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from temper import card, classes, devices, keras_files
from temper.base import running
from temper.calibration import fit_temperature
from temper.classifier import HEAD, freeze_backbone, trainable_parameters
from temper.settings.warm_up import Head, Settings
from temper.shards import Shards
from temper.training.batches import Batches, Indices, one_hot, shuffled
from temper.training.phases import Phase, Result, fit, logged, write_outcome
from temper.training.unfinished import unfinished


def build_head(features: int, classes: int, settings: Head) -> keras.Model:
    """The head: (n, features) embeddings -> (n, classes) probabilities."""
    inputs = keras.Input((features,), name="embedding")
    x = inputs
    for units in settings.units:
        x = keras.layers.Dense(units, use_bias=not settings.batch_norm)(x)
        if settings.batch_norm:
            x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Activation(settings.activation)(x)
        x = keras.layers.Dropout(settings.dropout)(x)
    if not settings.units:
        x = keras.layers.Dropout(settings.dropout)(x)
    outputs = keras.layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, outputs, name=HEAD)


def assemble(backbone: keras.Model, head: keras.Model) -> keras.Model:
    """The classifier: (n, height, width, 3) pixels -> (n, classes) probabilities. It shares the layers it is given."""
    inputs = keras.Input(backbone.input_shape[1:], name="pixels")
    return keras.Model(inputs, head(backbone(inputs)), name="classifier")


class Embeddings:
    """The embeddings of a split, memory-mapped, and the labels; each file is compared with its checksum once.

    Attributes:
        labels: int32 (N,), the index of a class each.
        views: how many there are of each image.
    """

    def __init__(self, split: str, classes: int | None = None) -> None:
        """Opens them.

        Args:
            classes: how many there are: labels must be below. `None` if the reader has no list of them.

        Raises:
            TemperError: a file is missing or not as it was written, or a label is no index of a class.
        """
        self._shards = Shards(Path("data/embeddings") / split, "embeddings")  # rows of (views, features)
        self.labels: npt.NDArray[np.int32] = self._shards.labels(classes)
        self.views, self._features = self._shards.shape

    def take(self, rows: Indices, views: Indices) -> npt.NDArray[np.float32]:
        """One view of each of some images, (n, features)."""
        out = np.empty((len(rows), self._features), np.float32)
        for place, (row, view) in enumerate(zip(rows.tolist(), views.tolist(), strict=True)):
            out[place] = self._shards.row(row)[view]
        return out


def epoch_batches(embeddings: Embeddings, classes: int, settings: Settings, epoch: int) -> Batches:
    """An epoch's training batches: every image once, in one of its views."""
    count = len(embeddings.labels)
    views = np.random.default_rng([settings.seed, epoch, 1]).integers(embeddings.views, size=(count,))
    order = shuffled(count, settings.seed, epoch)
    targets = one_hot(embeddings.labels, classes)
    return Batches(lambda rows: embeddings.take(rows, views[rows]), targets, order, settings.batch_size)


def plain_batches(embeddings: Embeddings, classes: int) -> Batches:
    """The plain images of a split, in order."""
    rows = np.arange(len(embeddings.labels))
    targets = one_hot(embeddings.labels, classes)
    return Batches(lambda rows: embeddings.take(rows, np.zeros_like(rows)), targets, rows, 1024)


def train_head(backbone: keras.Model, head: keras.Model, made: card.Card, settings: Settings) -> Result:
    """Trains the head and saves the classifier, with its progress in metrics/warm_up."""
    count = len(made.classes)
    train, held_out = (Embeddings(split, count) for split in ("train", "validation"))
    validation = plain_batches(held_out, count)
    chosen = settings.warm_up
    phase = Phase(
        epochs=chosen.epochs,
        lr=chosen.lr,
        optimizer=chosen.optimizer,
        schedule=chosen.schedule,
        early_stopping=chosen.early_stopping,
        select=chosen.select,
    )
    with unfinished("warm_up", settings) as state, logged("warm_up") as live:
        training = partial(epoch_batches, train, count, settings)
        result = fit(head, phase, training, validation, state, live)
        classifier = assemble(backbone, head)
        freeze_backbone(classifier)
        found = fit_temperature(head.predict(validation, verbose=0), held_out.labels)
        made = made.model_copy(update={"temperature": found})
        # Before the state that could make it again is removed:
        keras_files.save(classifier, "models/warm_up.keras", made.as_entry())
    return result


def main(settings: Settings) -> None:
    print(devices.described())
    keras.utils.set_random_seed(settings.seed)
    backbone = keras_files.load("models/backbone.keras")
    made = card.Card(
        classes=classes.read(),
        preparation=card.read_preparation(),
        backbone=card.read_backbone("models/backbone.keras"),
    )
    head = build_head(backbone.output_shape[-1], len(made.classes), settings.warm_up.head)
    result = train_head(backbone, head, made, settings)
    write_outcome("warm_up", result, trainable_parameters=trainable_parameters(head))
    print(f"warm-up: validation accuracy {result.best['val_accuracy']:.4f} at epoch {result.best_epoch}")


if __name__ == "__main__":
    running.run(main, Settings)
