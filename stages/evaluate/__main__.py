"""evaluate: packed images and both models -> metrics/evaluate/, data/predictions.parquet, and more.

The models of both phases are measured on validation and on test, so that `dvc metrics diff` shows what each phase
contributed. Each figure gets a 95 % interval. For the fine-tuned model, which is the one to use, the stage also writes:

- the tables for each class, the curves, the predictions, data/mistakes.csv and data/to_label.csv, all of them with
  `evaluate.test_time_augmentation`;
- data/occlusion.parquet: occlusion maps, which show where the model looks, for some test images;
- data/filters.npz: kernels or activations of the layers that `evaluate.filters` names.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin(with_keras=True, on_gpu=True)  # before anything heavy is imported

import sys
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from stages.evaluate import filters, occlusion_maps
from temper import batches, card, devices, images, keras_files, predictions, tables
from temper.base import running
from temper.base.atomic import atomic_file, atomic_folder
from temper.base.errors import TemperError
from temper.base.texts import write_csv, write_json
from temper.explanations import filters as filters_file
from temper.measures.calibration import Probabilities
from temper.measures.figure_tables import TABLES
from temper.measures.figures import Figures, Measured, measured
from temper.measures.intervals import Interval
from temper.measures.uncertainty import margins, worth_labelling
from temper.packs import Pack
from temper.settings.evaluate import Evaluate, Settings
from temper.views import View, averaged, seen, views

MODELS = {"": "models/fine_tune.keras", "warm_up_": "models/warm_up.keras"}  # keys: prefixes of the metrics' names
SPLITS = {"": "test", "validation_": "validation"}
FINE_TUNE = MODELS[""]
TO_LABEL, MISTAKES = "data/to_label.csv", "data/mistakes.csv"


def open_pack(split: str, made: card.Card) -> Pack:
    """The packed images of a split.

    Raises:
        TemperError: they have another size than the images that the model was trained on.
    """
    pack = Pack(f"data/packed/{split}", len(made.classes))
    height, width, _ = pack.image_shape
    if (height, width) != (made.preparation.height, made.preparation.width):
        raise TemperError(
            f"data/packed/{split}: expected images of {made.preparation.height}x{made.preparation.width}, as "
            f"{FINE_TUNE} was trained on, received {height}x{width}; run dvc repro"
        )
    return pack


def chosen_views(settings: Evaluate) -> list[View]:
    """The views of each image whose predictions are averaged, by `evaluate.test_time_augmentation`."""
    chosen = settings.test_time_augmentation
    return views(chosen) if isinstance(chosen, int) else views(1, mirrored=chosen == "flip")


def predict(classifier: keras.Model, pack: Pack, chosen: Sequence[View] = (View(),)) -> Probabilities:
    """The classifier's probabilities for every image of a pack, averaged over the chosen views: (n, classes)."""

    def of_view(view: View) -> Probabilities:
        rows = np.arange(len(pack))
        shown = batches.Batches(lambda rows: seen(pack.images(rows), view), None, rows, batches.INFERENCE_BATCH)
        return batches.predict(classifier, shown, verbose=int(sys.stdout.isatty()))

    return averaged(of_view, chosen)


def measure_model(
    path: str, classifier: keras.Model, packs: Mapping[str, Pack], chosen: Sequence[View]
) -> dict[str, Measured]:
    """Measures a model on test and on validation; the keys are the prefixes of `SPLITS`."""
    temperature = card.read(path).temperature
    return {
        prefix: measured(predict(classifier, packs[split], chosen), packs[split].labels, temperature)
        for prefix, split in SPLITS.items()
    }


def figures_of(found: Mapping[str, Mapping[str, Measured]]) -> Figures:
    """The figures and intervals of all models and splits, under names that no other metrics file uses.

    A name without prefix is a figure of the fine-tuned model on test. The numbers of images and classes of a split are
    the same for both models and are listed once.

    Args:
        found: by the prefix of the model, then by the prefix of the split.
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


def augmented(settings: Evaluate) -> dict[str, str | int]:
    """The entry of metrics.json that says how predictions were averaged; empty without test-time augmentation."""
    chosen = settings.test_time_augmentation
    return {} if chosen == "none" else {"test_time_augmentation": chosen}


def write_to_label() -> None:
    """Writes data/to_label.csv: the unlabelled images, starting with those that are most worth labelling."""
    found = predictions.read("unlabelled")
    sure, between = found.probabilities.max(axis=1, initial=0), margins(found.probabilities)
    rows = (
        (found.paths[row], found.predicted[row], f"{sure[row]:.4f}", f"{between[row]:.4f}")
        for row in worth_labelling(found.probabilities).tolist()
    )
    with atomic_file(TO_LABEL) as partial:
        write_csv(partial, ["path", "predicted", "probability", "margin"], rows)


def write_mistakes(names: list[str]) -> None:
    """Writes data/mistakes.csv: the misclassified test images, the most confident mistakes first."""
    found = predictions.read("test")
    number = {name: place for place, name in enumerate(names)}
    rows = []
    for row in found.wrong_rows():
        both = str(found.class_names[row]), found.predicted[row]
        of_both = [f"{found.probabilities[row, number[name]]:.4f}" for name in both]
        rows.append((found.paths[row], *both, *of_both))
    with atomic_file(MISTAKES) as partial:
        write_csv(
            partial, ["path", "class_name", "predicted", "probability_of_class", "probability_of_predicted"], rows
        )


def main(settings: Settings) -> None:
    print(devices.described())
    made = card.read(FINE_TUNE)
    devices.use(made.backbone.devices)
    packs = {split: open_pack(split, made) for split in ("validation", "test", "unlabelled")}
    if not len(packs["test"]):
        raise TemperError("evaluate: expected test images, received none; raise normalize.test")
    chosen = chosen_views(settings.evaluate)
    found, unlabelled = {}, {}
    for prefix, path in MODELS.items():
        classifier = keras_files.load(path)
        found[prefix] = measure_model(path, classifier, packs, chosen if path == FINE_TUNE else [View()])
        if path == FINE_TUNE:
            fine_tuned = classifier
            if len(packs["unlabelled"]):
                unlabelled = {"unlabelled": predict(classifier, packs["unlabelled"], chosen)}
    figures, test = figures_of(found), found[""][""]
    with atomic_folder("metrics/evaluate") as folder:
        beside = {"parameters": fine_tuned.count_params(), **augmented(settings.evaluate)}
        write_json(folder / "metrics.json", {**figures.values, **beside})
        write_json(folder / "intervals.json", figures.rounded)
        for name, table in TABLES.items():
            write_csv(folder / name, *table(test, made.classes))
    write_predictions({"test": test.probabilities, **unlabelled}, made.classes)
    write_to_label()
    write_mistakes(made.classes)
    occlusion_maps.write(fine_tuned, packs["test"], predictions.read("test"), settings.evaluate.occlusion_maps)
    filters_file.write(filters.find(fine_tuned, settings.evaluate.filters, packs["test"]))
    low, high = figures.intervals["accuracy"]
    print(f"test accuracy {figures.values['accuracy']:.4f} ({low:.4f} to {high:.4f}) ", end="")
    print(f"on {len(test.labels)} images; before the fine-tune it was {figures.values['warm_up_accuracy']:.4f}")


if __name__ == "__main__":
    running.run(main, Settings)
