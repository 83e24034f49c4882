"""The solver `gradient`: trains any head on the embeddings, epoch by epoch, with an optimizer."""

from functools import partial

import keras
import numpy as np
from dvclive import Live

from temper.batches import Batches, one_hot, shuffled
from temper.embeddings import Embeddings
from temper.settings.warm_up import Settings
from temper.training.phases import Phase, Result, fit
from temper.training.unfinished import Unfinished


def epoch_batches(embeddings: Embeddings, classes: int, settings: Settings, epoch: int) -> Batches:
    """An epoch's training batches: every image once, in one of its views drawn at random."""
    count = len(embeddings.labels)
    views = np.random.default_rng([settings.seed, epoch, 1]).integers(embeddings.views, size=(count,))
    order = shuffled(count, settings.seed, epoch)
    targets = one_hot(embeddings.labels, classes)
    return Batches(lambda rows: embeddings.take(rows, views[rows]), targets, order, settings.batch_size)


def plain_batches(embeddings: Embeddings, classes: int) -> Batches:
    """The embeddings of a split's plain images (view 0), in order."""
    rows = np.arange(len(embeddings.labels))
    targets = one_hot(embeddings.labels, classes)
    return Batches(lambda rows: embeddings.take(rows, np.zeros_like(rows)), targets, rows, 1024)


def train(head: keras.Model, settings: Settings, state: Unfinished, live: Live) -> Result:
    """Trains the head, which ends with the weights of its best epoch on validation."""
    classes = head.output_shape[-1]
    embeddings, validation = Embeddings("train", classes), plain_batches(Embeddings("validation", classes), classes)
    chosen = settings.warm_up
    phase = Phase(
        epochs=chosen.epochs,
        lr=chosen.lr,
        optimizer=chosen.optimizer,
        schedule=chosen.schedule,
        early_stopping=chosen.early_stopping,
        select=chosen.select,
    )
    return fit(head, phase, partial(epoch_batches, embeddings, classes, settings), validation, state, live)
