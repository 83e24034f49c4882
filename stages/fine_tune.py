"""fine_tune: packed train and validation images, models/warm_up.keras -> models/fine_tune.keras, metrics/fine_tune/.

The second heat: the backbone is opened from `fine_tune.unfreeze_from` on, and all that is open trains at the top-level
`lr`, on images augmented by the top-level `aug`.
"""

from temper import quiet

if __name__ == "__main__":
    quiet.keep_out_noise()  # before TensorFlow is imported

import keras
import numpy as np
import numpy.typing as npt

from temper import keras_files, running
from temper.augmentation import augment_images, magnitudes
from temper.batches import INFERENCE_BATCH, Batches, Indices, shuffled
from temper.classifier import trainable_parameters, unfreeze
from temper.fitting import Heat, Result, fit, log_outcome, open_live
from temper.packs import Pack
from temper.parallel import cores
from temper.params import Params
from temper.unfinished import unfinished


def epoch_batches(pack: Pack, params: Params, epoch: int) -> Batches:
    """An epoch's training batches: every image once, augmented anew."""
    magnitude = magnitudes(params.aug, params.fine_tune.augmentation)

    def read(rows: Indices) -> npt.NDArray[np.uint8]:
        images = pack.images(rows)
        augment_images(images, rows, magnitude, params.seed, epoch)
        return images

    return Batches(read, pack.labels, shuffled(len(pack), params.seed, epoch), params.batch_size, cores())


def train_classifier(classifier: keras.Model, params: Params) -> Result:
    """Trains what is open of the classifier and saves it, with its progress in metrics/fine_tune."""
    train, held_out = Pack("data/packed/train"), Pack("data/packed/validation")
    validation = Batches(held_out.images, held_out.labels, np.arange(len(held_out)), INFERENCE_BATCH)
    settings = params.fine_tune
    heat = Heat(settings.epochs, params.lr, settings.optimizer, settings.schedule, settings.early_stopping)
    with unfinished("fine_tune", params) as state, open_live("metrics/fine_tune") as live:
        result = fit(classifier, heat, lambda epoch: epoch_batches(train, params, epoch), validation, state, live)
        log_outcome(live, result, trainable_parameters=trainable_parameters(classifier))
        keras_files.save(classifier, "models/fine_tune.keras")  # before the state that could make it again is removed
    return result


def main(params: Params) -> None:
    keras.utils.set_random_seed(params.seed)
    classifier = keras_files.load("models/warm_up.keras")
    unfreeze(classifier, params.fine_tune.unfreeze_from, pretrained=params.backbone.weights != "none")
    open_layers = [layer.name for layer in classifier.get_layer("backbone").layers if layer.trainable_weights]
    print(
        f"fine-tuning {trainable_parameters(classifier):,} of {classifier.count_params():,} parameters: the head and "
        f"{len(open_layers)} layers of the backbone, lr {params.lr:g}"
    )
    result = train_classifier(classifier, params)
    best = result.history[result.best_epoch]
    print(f"fine-tune: validation accuracy {best['val_accuracy']:.4f} at epoch {result.best_epoch}")


if __name__ == "__main__":
    running.run(main)
