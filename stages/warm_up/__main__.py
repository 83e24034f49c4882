"""warm_up: embeddings and the backbone -> models/warm_up.keras, metrics/warm_up/.

The first phase: a new head is trained on the frozen backbone's embeddings, where an epoch costs next to nothing, or
solved for exactly if it is linear. It saves the whole classifier.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin(with_keras=True, on_gpu=True)  # before anything heavy is imported

import keras

from stages.warm_up import gradient, regression
from stages.warm_up.heads import assemble, build_head
from temper import card, classes, devices, keras_files
from temper.base import running
from temper.embeddings import Embeddings
from temper.freezing.classifier import freeze_backbone, trainable_parameters
from temper.measures.calibration import fit_temperature
from temper.settings.warm_up import Head, Settings
from temper.training.phases import Result, logged, write_outcome
from temper.training.unfinished import unfinished


def head_settings(settings: Settings) -> Head:
    """What the head is built by: with the solver `logistic` nothing is left out at random, in the fine-tune neither."""
    chosen = settings.warm_up
    return chosen.head if chosen.solver == "gradient" else chosen.head.model_copy(update={"dropout": 0.0})


def train_head(backbone: keras.Model, head: keras.Model, made: card.Card, settings: Settings) -> Result:
    """Trains the head and saves the classifier, with its progress in metrics/warm_up."""
    with unfinished("warm_up", settings) as state, logged("warm_up") as live:
        if settings.warm_up.solver == "gradient":
            result = gradient.train(head, settings, state, live)
        else:
            result = regression.train(head, settings, live)  # in seconds: after a kill it just starts again
        classifier = assemble(backbone, head)
        freeze_backbone(classifier)
        made = made.model_copy(update={"temperature": temperature(head)})
        # Before the state that could make it again is removed:
        keras_files.save(classifier, "models/warm_up.keras", made.as_entry())
    return result


def temperature(head: keras.Model) -> float:
    """By how much the head's probabilities are to be softened or sharpened, by the validation images."""
    held_out = Embeddings("validation", head.output_shape[-1])
    return fit_temperature(head.predict(held_out.every_view()[:, 0], batch_size=1024, verbose=0), held_out.labels)


def main(settings: Settings) -> None:
    print(devices.described())
    keras.utils.set_random_seed(settings.seed)
    backbone = keras_files.load("models/backbone.keras")
    made = card.Card(
        classes=classes.read(),
        preparation=card.read_preparation(),
        backbone=card.read_backbone("models/backbone.keras"),
    )
    head = build_head(backbone.output_shape[-1], len(made.classes), head_settings(settings))
    result = train_head(backbone, head, made, settings)
    facts = {"C": result.best["C"]} if "C" in result.best else {}
    write_outcome("warm_up", result, trainable_parameters=trainable_parameters(head), **facts)
    at = f"at epoch {result.best_epoch}"
    if facts:
        at = f"at C {result.best['C']:g}, number {result.best_epoch} of {len(result.history)} tried"
    print(f"warm-up: validation accuracy {result.best['val_accuracy']:.4f} {at}")


if __name__ == "__main__":
    running.run(main, Settings)
