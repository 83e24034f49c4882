"""warm_up: embeddings and the backbone -> models/warm_up.keras, metrics/warm_up/.

The first heat: a new head is trained on the frozen backbone's embeddings, where an epoch costs next to nothing. What is
saved is the full classifier.
"""

from temper import quiet

if __name__ == "__main__":
    quiet.keep_out_noise()  # before TensorFlow is imported

from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from temper import keras_files, running
from temper.batches import Batches, Indices, shuffled
from temper.classifier import assemble, build_head, freeze_backbone, trainable_parameters
from temper.fitting import Heat, Result, fit, log_outcome, open_live
from temper.params import Params
from temper.unfinished import unfinished

Embeddings = npt.NDArray[np.float32]  # (views, N, features)


def read_embeddings(split: str) -> tuple[Embeddings, npt.NDArray[np.int32]]:
    """The embeddings of a split, mapped, and the labels, (N,)."""
    folder = Path("data/embeddings") / split
    return np.load(folder / "embeddings.npy", mmap_mode="r"), np.load(folder / "labels.npy")


def epoch_batches(embeddings: Embeddings, labels: npt.NDArray[np.int32], params: Params, epoch: int) -> Batches:
    """An epoch's training batches: every image once, in one of its views."""
    views, rows, _ = embeddings.shape
    random = np.random.default_rng([params.seed, epoch, 1])
    view = random.integers(views, size=(rows,))

    def read(chosen: Indices) -> npt.NDArray[np.float32]:
        return embeddings[view[chosen], chosen]

    return Batches(read, labels, shuffled(rows, params.seed, epoch), params.batch_size)


def train_head(backbone: keras.Model, head: keras.Model, params: Params) -> Result:
    """Trains the head and saves the classifier, with its progress in metrics/warm_up."""
    train, labels = read_embeddings("train")
    held_out, held_out_labels = read_embeddings("validation")
    validation = Batches(lambda rows: held_out[0, rows], held_out_labels, np.arange(len(held_out_labels)), 1024)
    settings = params.warm_up
    heat = Heat(settings.epochs, settings.lr, settings.optimizer, settings.schedule, settings.early_stopping)
    with unfinished("warm_up", params) as state, open_live("metrics/warm_up") as live:
        result = fit(head, heat, lambda epoch: epoch_batches(train, labels, params, epoch), validation, state, live)
        log_outcome(live, result, trainable_parameters=trainable_parameters(head))
        classifier = assemble(backbone, head)
        freeze_backbone(classifier)
        keras_files.save(classifier, "models/warm_up.keras")  # before the state that could make it again is removed
    return result


def main(params: Params) -> None:
    keras.utils.set_random_seed(params.seed)
    backbone = keras_files.load("models/backbone.keras")
    classes = Path("data/classes.txt").read_text(encoding="utf-8").splitlines()
    head = build_head(backbone.output_shape[-1], len(classes), params.warm_up.head)
    result = train_head(backbone, head, params)
    best = result.history[result.best_epoch]
    print(f"warm-up: validation accuracy {best['val_accuracy']:.4f} at epoch {result.best_epoch}")


if __name__ == "__main__":
    running.run(main)
