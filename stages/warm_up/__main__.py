"""warm_up: embeddings and the backbone -> models/warm_up.keras, metrics/warm_up/.

The first phase. It trains a new head on the frozen backbone's embeddings, where an epoch costs next to nothing; a
linear head can be solved for exactly instead (`warm_up.solver: logistic`). It saves the whole classifier.
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
    """The settings to build the head with. The solver `logistic` sets dropout to 0, also for the fine-tune."""
    chosen = settings.warm_up
    return chosen.head if chosen.solver == "gradient" else chosen.head.model_copy(update={"dropout": 0.0})


def train_head(backbone: keras.Model, head: keras.Model, made: card.Card, settings: Settings) -> Result:
    """Trains the head, saves the classifier, and logs each epoch to metrics/warm_up."""
    with unfinished("warm_up", settings) as state, logged("warm_up") as live:
        if settings.warm_up.solver == "gradient":
            result = gradient.train(head, settings, state, live)
        else:
            result = regression.train(head, settings, live)  # takes seconds: a killed run simply starts again
        classifier = assemble(backbone, head)
        freeze_backbone(classifier)
        made = made.model_copy(update={"temperature": temperature(head)})
        # Save inside the block: on leaving it, the state from which a killed run continues is deleted.
        keras_files.save(classifier, "models/warm_up.keras", made.as_entry())
    return result


def temperature(head: keras.Model) -> float:
    """The temperature that calibrates the head's probabilities, fitted on the validation images."""
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
