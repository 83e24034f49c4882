"""evaluate: packed images and both models -> metrics/evaluate/, data/predictions.parquet.

Both phases are measured on validation and on test, so that `dvc metrics diff` shows what each of them brought, and each
figure gets a 95 % interval. The fine-tuned model, which is the one to use, also gives the tables of each class, the
curves and the predictions.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin(with_keras=True)  # before anything heavy is imported

import sys
from collections.abc import Mapping

import keras
import numpy as np

from stages.evaluate.figures import Figures, Measured, measured
from stages.evaluate.tables import TABLES
from temper import card, devices, images, keras_files, predictions, tables
from temper.base import running
from temper.base.atomic import atomic_folder
from temper.base.errors import TemperError
from temper.base.texts import write_csv, write_json
from temper.calibration import Probabilities
from temper.intervals import Interval
from temper.packs import Pack
from temper.settings.base import StageSettings
from temper.training.batches import INFERENCE_BATCH, Batches

MODELS = {"": "models/fine_tune.keras", "warm_up_": "models/warm_up.keras"}  # by the prefix of their figures
SPLITS = {"": "test", "validation_": "validation"}
FINE_TUNE = MODELS[""]


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


def measure_model(path: str, classifier: keras.Model, packs: Mapping[str, Pack]) -> dict[str, Measured]:
    """A model measured on test and on validation, by the prefix of the split."""
    temperature = card.read(path).temperature
    return {
        prefix: measured(predict(classifier, packs[split]), packs[split].labels, temperature)
        for prefix, split in SPLITS.items()
    }


def figures_of(found: Mapping[str, Mapping[str, Measured]]) -> Figures:
    """The figures and intervals of all models and splits, under names that are unique across all metrics.

    A figure without prefix is the fine-tuned model's on test. How many images and classes a split has is said once.
    """
    values: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for model, of_model in found.items():
        values[f"{model}temperature"] = of_model[""].temperature
        for split, of_split in of_model.items():
            of_all = dict(of_split.values)
            values[f"{SPLITS[split]}_images"] = of_all.pop("images")
            values.setdefault(f"{split}macro_over_classes", of_all.pop("macro_over_classes"))
            values |= {f"{model}{split}{name}": value for name, value in of_all.items()}
            intervals |= {f"{model}{split}{name}": interval for name, interval in of_split.intervals.items()}
    return Figures(values, intervals)


def write_predictions(probabilities: Mapping[str, Probabilities], names: list[str]) -> None:
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
    print(devices.described())
    made = card.read(FINE_TUNE)
    packs = {split: open_pack(split, made) for split in ("validation", "test", "unlabelled")}
    if not len(packs["test"]):
        raise TemperError("evaluate: expected test images, received none; raise normalize.test")
    found, unlabelled, parameters = {}, {}, 0
    for prefix, path in MODELS.items():
        classifier = keras_files.load(path)
        found[prefix] = measure_model(path, classifier, packs)
        if path == FINE_TUNE:
            parameters = classifier.count_params()
            if len(packs["unlabelled"]):
                unlabelled = {"unlabelled": predict(classifier, packs["unlabelled"])}
    figures, test = figures_of(found), found[""][""]
    with atomic_folder("metrics/evaluate") as folder:
        write_json(folder / "metrics.json", {**figures.values, "parameters": parameters})
        write_json(folder / "intervals.json", figures.rounded)
        for name, table in TABLES.items():
            write_csv(folder / name, *table(test, made.classes))
    write_predictions({"test": test.probabilities, **unlabelled}, made.classes)
    low, high = figures.intervals["accuracy"]
    print(f"test accuracy {figures.values['accuracy']:.4f} ({low:.4f} to {high:.4f}) ", end="")
    print(f"on {len(test.labels)} images; before the fine-tune it was {figures.values['warm_up_accuracy']:.4f}")


if __name__ == "__main__":
    running.run(main, StageSettings)
