"""evaluate: packed images and both models -> metrics/evaluate/, data/predictions.parquet.

Both phases are measured on validation and on test, so that `dvc metrics diff` shows what each of them brought. The
fine-tuned model, which is the one to use, also gives the tables of each class and the predictions.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin(with_keras=True)  # before anything heavy is imported

import sys
from pathlib import Path

import keras
import numpy as np

from temper import card, images, keras_files, predictions, tables
from temper.base import running
from temper.base.atomic import atomic_folder
from temper.base.errors import TemperError
from temper.base.texts import write_csv, write_json
from temper.measures import Labels, Probabilities, measure, per_class
from temper.packs import Pack
from temper.settings.base import StageSettings
from temper.training.batches import INFERENCE_BATCH, Batches

WARM_UP, FINE_TUNE = "models/warm_up.keras", "models/fine_tune.keras"
COMPARED = ("accuracy", "macro_f1", "loss")  # of the warm-up, and of the fine-tuned model on validation


def open_pack(split: str, made: card.Card) -> Pack:
    """The packed images of a split.

    Raises:
        TemperError: they were not packed as the model was fed.
    """
    pack = Pack(f"data/packed/{split}", len(made.classes))
    height, width, _ = pack.image_shape
    if (height, width) != (made.preparation.height, made.preparation.width):
        raise TemperError(
            f"data/packed/{split}: expected images of {made.preparation.height}x{made.preparation.width}, as "
            f"{FINE_TUNE} was trained on, received {height}x{width}; run dvc repro"
        )
    return pack


def predict(classifier: keras.Model, pack: Pack) -> Probabilities:
    """The classifier's probabilities for every image of a pack, in its order."""
    batches = Batches(pack.images, None, np.arange(len(pack)), INFERENCE_BATCH)
    probabilities: Probabilities = classifier.predict(batches, verbose=int(sys.stdout.isatty()))
    return probabilities


def compared(probabilities: Probabilities, labels: Labels, prefix: str) -> dict[str, float]:
    """The figures by which phases are compared, under names that are unique across all metrics."""
    figures = measure(probabilities, labels)
    return {f"{prefix}_{name}": figures[name] for name in COMPARED}


def write_tables(folder: Path, probabilities: Probabilities, labels: Labels, names: list[str]) -> None:
    """Writes confusion.csv, a row an image, and per_class.csv, a row a class."""
    predicted = probabilities.argmax(axis=1)
    pairs = ((names[label], names[guess]) for label, guess in zip(labels, predicted, strict=True))
    write_csv(folder / "confusion.csv", ["actual", "predicted"], pairs)
    rows = per_class(probabilities, labels).rows(names)
    write_csv(folder / "per_class.csv", ["class_name", "precision", "recall", "f1", "images"], rows)


def write_predictions(probabilities: dict[str, Probabilities], names: list[str]) -> None:
    """Writes data/predictions.parquet for the splits in `probabilities`, in the order of images.parquet."""
    table = images.read(["image_id", "path", "class_name", "split"])
    splits = np.asarray(table["split"].to_pylist())
    chosen = table.take(np.flatnonzero(np.isin(splits, list(probabilities))))
    every = np.empty((len(chosen), len(names)), np.float32)
    for split, of_split in probabilities.items():
        every[np.asarray(chosen["split"].to_pylist()) == split] = of_split
    columns = {name: chosen[name] for name in ("image_id", "path", "split", "class_name")}
    columns |= {"predicted": [names[guess] for guess in every.argmax(axis=1)], "probabilities": list(every)}
    tables.write(predictions.PATH, predictions.PREDICTIONS, columns)


def main(settings: StageSettings) -> None:
    made = card.read(FINE_TUNE)
    packs = {split: open_pack(split, made) for split in ("validation", "test", "unlabelled")}
    if not len(packs["test"]):
        raise TemperError("evaluate: expected test images, received none; raise normalize.test")
    test, validation = packs["test"], packs["validation"]
    classifier = keras_files.load(FINE_TUNE)
    probabilities = {split: predict(classifier, packs[split]) for split in ("test", "unlabelled") if len(packs[split])}
    figures = measure(probabilities["test"], test.labels)
    figures["test_images"] = figures.pop("images")
    figures |= compared(predict(classifier, validation), validation.labels, "validation")
    warm_up = keras_files.load(WARM_UP)
    figures |= compared(predict(warm_up, test), test.labels, "warm_up")
    figures |= compared(predict(warm_up, validation), validation.labels, "warm_up_validation")
    with atomic_folder("metrics/evaluate") as folder:
        write_json(folder / "metrics.json", figures)
        write_tables(folder, probabilities["test"], test.labels, made.classes)
    write_predictions(probabilities, made.classes)
    print(f"test accuracy {figures['accuracy']:.4f} on {len(test)} images; before the fine-tune it was ", end="")
    print(f"{figures['warm_up_accuracy']:.4f}")


if __name__ == "__main__":
    running.run(main, StageSettings)
