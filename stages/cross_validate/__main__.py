"""cross_validate: embeddings of train and validation -> metrics/cross_validate/, data/out_of_fold.parquet.

Estimates how well a linear head can classify these photos, from all images except those of the test split. Each image
is classified by a logistic regression that was not trained on it. With few photos, such as 160, this says more than the
validation split alone. The same predictions reveal labels that are probably wrong. With `cross_validate: 0`, the stage
reads nothing and writes tables without rows.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin()  # before anything heavy is imported

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.cross_validate.groups import read_groups
from stages.cross_validate.label_errors import LabelError, probable_label_errors
from temper import classes, images, tables
from temper.base import running
from temper.base.atomic import atomic_folder
from temper.base.errors import TemperError
from temper.base.texts import write_csv, write_json
from temper.embeddings import Embeddings
from temper.folds import stratified_folds
from temper.logistic import Images, fold_trials, judged, path
from temper.measures.intervals import wilson
from temper.measures.metrics import measure
from temper.settings.cross_validate import Settings

OUT_OF_FOLD_PATH, METRICS = "data/out_of_fold.parquet", "metrics/cross_validate"
OUT_OF_FOLD = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("class_name", pa.string()),
        ("predicted", pa.string()),
        ("probabilities", pa.list_(pa.float32())),  # in the order of the classes, by a head not trained on the image
        ("fold", pa.int32()),  # the image's fold, from 0; the head was trained on the other folds
    ]
)
LABEL_ERROR_COLUMNS = ["image_id", "path", "class_name", "suggested", "confidence"]
C = [1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]  # as the warm-up's default
INNER_FOLDS = 5
MANY = 2000  # with more images than this, a single inner fold is enough to choose C

Probabilities = npt.NDArray[np.float64]  # (N, classes)
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """The predictions of a cross-validation.

    Attributes:
        probabilities: (N, classes), for each image by the regression that was trained on the other folds.
        folds: the fold of each image, from 0, (N,).
    """

    probabilities: Probabilities
    folds: Integers


def cross_validate(every: Images, groups: Integers, classes: int, count: int, seed: int) -> Estimate:
    """Classifies the plain view of each image with a regression trained on all views of the images in other folds.

    C is chosen separately for each fold, by inner folds of its training images (nested cross-validation: Varma and
    Simon, BMC Bioinformatics 7:91, 2006). A single C chosen on all images would make the estimate optimistic, because
    the images it is tested on would have taken part in the choice.

    Args:
        every: all images, N of them.
        groups: the group of each image, (N,); images of a group get the same fold.
        classes: how many classes there are.
        count: how many folds.
        seed: decides how images are divided into folds.
    """
    folds = stratified_folds(every.labels, count, seed, groups)
    probabilities = np.zeros((len(every.labels), classes))
    for fold in np.unique(folds):
        inside, outside = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        train = every.take(outside)
        strength = chosen_strength(train, groups[outside], classes, seed)
        linear = next(path(train, classes, [strength]))
        probabilities[inside] = linear.probabilities(every.plain[inside])
    return Estimate(probabilities, folds)


def chosen_strength(train: Images, groups: Integers, classes: int, seed: int) -> float:
    """The C with the lowest log loss over folds of the images; the middle value if there are too few for folds."""
    trials = fold_trials(train, stratified_folds(train.labels, INNER_FOLDS, seed, groups))
    if not trials:
        return C[len(C) // 2]
    losses = [loss for loss, _ in judged(trials[:1] if len(train.labels) > MANY else trials, classes, C)]
    return C[int(np.argmin(losses))]


def read_images(names: list[str]) -> tuple[pa.Table, Images]:
    """The training images, then the validation images: their rows of images.parquet, and their embeddings.

    Validation images have a single view. It is repeated so that they have as many views as training images.

    Raises:
        TemperError: there are fewer than two images, or the embeddings belong to other images.
    """
    table = images.read()
    splits = np.asarray(table["split"].to_pylist())
    rows, views, labels = [], [], []
    most = Embeddings("train").views
    for split in ("train", "validation"):
        embeddings = Embeddings(split, len(names))
        rows.append(np.flatnonzero(splits == split))
        if len(rows[-1]) != len(embeddings):
            raise TemperError(
                f"data/embeddings/{split}: expected the {len(rows[-1])} images of {images.PATH}, received "
                f"{len(embeddings)}; run dvc repro"
            )
        every = embeddings.every_view()
        views.append(every if every.shape[1] == most else np.repeat(every[:, :1], most, axis=1))
        labels.append(embeddings.labels)
    chosen = table.take(np.concatenate(rows))
    if len(chosen) < 2:
        raise TemperError(f"cross_validate: expected two images or more, received {len(chosen)}")
    number = {name: place for place, name in enumerate(names)}
    found = Images(np.concatenate(views), np.concatenate(labels))
    assert [number[name] for name in chosen["class_name"].to_pylist()] == found.labels.tolist()
    return chosen, found


def write_predictions(table: pa.Table, estimate: Estimate, names: list[str]) -> None:
    """Writes data/out_of_fold.parquet, the predictions of the cross-validation."""
    columns = {name: table[name] for name in ("image_id", "path", "class_name")}
    columns |= {
        "predicted": [names[guess] for guess in estimate.probabilities.argmax(axis=1)],
        "probabilities": list(estimate.probabilities.astype(np.float32)),
        "fold": estimate.folds.astype(np.int32),
    }
    tables.write(OUT_OF_FOLD_PATH, OUT_OF_FOLD, columns)


def write_metrics(figures: dict[str, float], table: pa.Table, errors: list[LabelError], names: list[str]) -> None:
    """Writes metrics.json and probable_label_errors.csv, which lists the clearest errors first."""
    with atomic_folder(METRICS) as folder:
        write_json(folder / "metrics.json", {f"cross_validation_{name}": figure for name, figure in figures.items()})
        rows = (
            (
                table["image_id"][error.row],
                table["path"][error.row],
                table["class_name"][error.row],
                names[error.suggested],
                f"{error.confidence:.4f}",
            )
            for error in errors
        )
        write_csv(folder / "probable_label_errors.csv", LABEL_ERROR_COLUMNS, rows)


def main(settings: Settings) -> None:
    if not settings.cross_validate:
        tables.write(OUT_OF_FOLD_PATH, OUT_OF_FOLD, {name: [] for name in OUT_OF_FOLD.names})
        write_metrics({}, images.IMAGES.empty_table(), [], [])
        print("cross-validation is off: cross_validate: 5 estimates by every image but the test's")
        return
    names = classes.read()
    table, every = read_images(names)
    estimate = cross_validate(every, read_groups(table), len(names), settings.cross_validate, settings.seed)
    measured = measure(estimate.probabilities, every.labels)
    # The interval treats the images as independent. The training sets of the folds overlap, so it is a little too
    # narrow: docs/head.md says how often it contained the expected accuracy in simulations. Student's t corrected for
    # the overlap (Nadeau and Bengio, Machine Learning 52, 2003) was up to twice as wide, and nearly empty near
    # accuracy 1.
    low, high = wilson(measured["accuracy"], len(table))
    errors = probable_label_errors(estimate.probabilities, every.labels)
    figures = {"accuracy": measured["accuracy"], "accuracy_low": low, "accuracy_high": high}
    figures |= {name: measured[name] for name in ("macro_f1", "loss")}
    figures |= {"images": len(table), "probable_label_errors": len(errors)}
    write_predictions(table, estimate, names)
    write_metrics(figures, table, errors, names)
    print(
        f"{settings.cross_validate}-fold cross-validation of a linear head: accuracy {measured['accuracy']:.4f} "
        f"(95 %: {low:.3f} to {high:.3f}) on {len(table)} images; {len(errors)} labels are probably wrong: "
        f"{METRICS}/probable_label_errors.csv"
    )


if __name__ == "__main__":
    running.run(main, Settings)
