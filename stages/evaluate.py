"""evaluate: packed test and unlabelled images, the classifier -> metrics/evaluate/, data/predictions.parquet."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
from sklearn.metrics import precision_recall_fscore_support

from temper import keras_files, running, tables
from temper.atomic import atomic_folder
from temper.batches import INFERENCE_BATCH, Batches
from temper.errors import TemperError
from temper.packs import Pack
from temper.params import Params
from temper.sheets import write_sheet

Probabilities = npt.NDArray[np.float32]  # (N, classes)
Labels = npt.NDArray[np.int32]  # (N,)

WORST = 40  # mistakes on the contact sheet


def predict(classifier: keras.Model, pack: Pack) -> Probabilities:
    """The classifier's probabilities for every image of a pack, in its order."""
    batches = Batches(pack.images, None, np.arange(len(pack)), INFERENCE_BATCH)
    return classifier.predict(batches, verbose=int(sys.stdout.isatty()))  # type: ignore[no-any-return]


def measure(probabilities: Probabilities, labels: Labels) -> dict[str, float]:
    """The test metrics; top-5 accuracy only where there are more than 5 classes.

    Macro figures are unweighted means over the classes that occur in `labels` or are predicted; a class that is never
    predicted has precision 0.
    """
    predicted = probabilities.argmax(axis=1)
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    figures = {"accuracy": float((predicted == labels).mean())}
    if probabilities.shape[1] > 5:
        top = np.argpartition(probabilities, -5, axis=1)[:, -5:]
        figures["top_5_accuracy"] = float((top == labels[:, None]).any(axis=1).mean())
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    figures |= {"macro_precision": float(precision), "macro_recall": float(recall), "macro_f1": float(f1)}
    figures["loss"] = float(-np.log(np.maximum(of_label, 1e-7)).mean())
    return figures | {"images": len(labels)}


def write_tables(folder: Path, probabilities: Probabilities, labels: Labels, classes: list[str]) -> None:
    """Writes confusion.csv, a row an image, and per_class.csv, a row a class."""
    predicted = probabilities.argmax(axis=1)
    pairs = ((classes[label], classes[guess]) for label, guess in zip(labels, predicted, strict=True))
    tables.write_csv(folder / "confusion.csv", ["actual", "predicted"], pairs)
    every = range(len(classes))
    scores = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    rows = (
        (name, f"{precision:.4f}", f"{recall:.4f}", f"{f1:.4f}", images)
        for name, precision, recall, f1, images in zip(classes, *scores, strict=True)
    )
    tables.write_csv(folder / "per_class.csv", ["class_name", "precision", "recall", "f1", "images"], rows)


def write_mistakes(path: Path, test: Pack, probabilities: Probabilities, classes: list[str]) -> None:
    """Writes a contact sheet of the wrong predictions, the surest first; none where all are right."""
    predicted, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != test.labels)
    strips = [
        (f"{classes[test.labels[row]]}, taken for {classes[predicted[row]]} ({sure[row]:.2f})", [test.image(int(row))])
        for row in wrong[np.argsort(-sure[wrong], kind="stable")][:WORST]
    ]
    write_sheet(path, strips, per_strip=1, across=7, cell=160)


def write_predictions(probabilities: dict[str, Probabilities], classes: list[str]) -> None:
    """Writes data/predictions.parquet for the splits in `probabilities`, in the order of images.parquet."""
    images = tables.read("data/images.parquet", tables.IMAGES, ["image_id", "path", "class_name", "split"])
    splits = np.asarray(images["split"].to_pylist())
    chosen = images.take(np.flatnonzero(np.isin(splits, list(probabilities))))
    every = np.empty((len(chosen), len(classes)), np.float32)
    for split, of_split in probabilities.items():
        every[np.asarray(chosen["split"].to_pylist()) == split] = of_split
    columns = {name: chosen[name] for name in ("image_id", "path", "split", "class_name")}
    columns |= {"predicted": [classes[guess] for guess in every.argmax(axis=1)], "probabilities": list(every)}
    tables.write("data/predictions.parquet", tables.PREDICTIONS, columns)


def main(params: Params) -> None:
    classes = Path("data/classes.txt").read_text(encoding="utf-8").splitlines()
    classifier = keras_files.load("models/fine_tune.keras")
    packs = {split: Pack(f"data/packed/{split}") for split in ("test", "unlabelled")}
    test = packs["test"]
    if not len(test):
        raise TemperError("evaluate: expected test images, received none; raise normalize.test")
    probabilities = {split: predict(classifier, pack) for split, pack in packs.items() if len(pack)}
    figures = measure(probabilities["test"], test.labels)
    with atomic_folder("metrics/evaluate") as folder:
        (folder / "metrics.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        write_tables(folder, probabilities["test"], test.labels, classes)
        (folder / "mistakes").mkdir()  # a plot of DVC, which is empty after a run without mistakes
        write_mistakes(folder / "mistakes/surest.png", test, probabilities["test"], classes)
    write_predictions(probabilities, classes)
    print(", ".join(f"{name} {value:.4g}" for name, value in figures.items()))


if __name__ == "__main__":
    running.run(main)
