"""The tables behind the charts of `dvc plots`; .dvc/plots/ has the templates that draw them.

Each function that returns a `Table` returns the column names and the rows.
"""

import re
from collections.abc import Sequence

from stages.overview.results import ClassScore, Phase, Results

Table = tuple[list[str], list[Sequence[object]]]

MOST_CLASSES = 30  # in a confusion matrix; with more classes, the most frequent confusions are listed instead
MOST_CONFUSIONS = 30
FIGURES = {  # the figures of metrics/evaluate/metrics.json that lie between 0 and 1, with their names on the page
    "accuracy": "accuracy",
    "top_3_accuracy": "top-3 accuracy",
    "top_5_accuracy": "top-5 accuracy",
    "macro_f1": "macro F1",
    "macro_recall": "macro recall",
    "macro_precision": "macro precision",
    "macro_auc": "macro AUC",
    "calibration_error": "calibration error",
    "scaled_calibration_error": "calibration error, scaled",
}
WORD_JOINER = "\u2060"  # an invisible character


def harmless(name: str) -> str:
    """A class name that looks the same, but cannot break the page.

    DVC writes tables unescaped into a script of the page, which a class named `</script>` would end, and it replaces
    placeholders such as `{refresh_tag}` in them. An invisible character after each `<` and `{` prevents both.
    """
    return re.sub(r"([<{])", rf"\1{WORD_JOINER}", name)


def curve_table(phases: Sequence[Phase], measure: str) -> Table:
    """A measure of both phases by epoch. Epochs are numbered through: the fine-tune's follow those of the warm-up."""
    rows: list[Sequence[object]] = []
    start = 0
    for phase in phases:
        for (split, of), values in phase.curves.items():
            for epoch, value in values.items() if of == measure else ():
                kept = "yes" if split == "validation" and epoch == phase.kept and not phase.halfway else "no"
                rows.append((start + epoch, phase.name, split, short(value), kept))
        start += phase.epochs
    return ["epoch", "phase", "split", measure, "kept"], rows


def rate_table(phases: Sequence[Phase]) -> Table:
    """The learning rate of both phases by epoch. Epochs are numbered through, as in `curve_table`."""
    rows: list[Sequence[object]] = []
    start = 0
    for phase in phases:
        rows.extend((start + epoch, phase.name, short(rate)) for epoch, rate in phase.rates.items())
        start += phase.epochs
    return ["epoch", "phase", "learning_rate"], rows


def by_failure(classes: Sequence[ClassScore]) -> list[ClassScore]:
    """The classes, the lowest F1 first; classes without a test image, of which nothing is known, come last."""
    return sorted(classes, key=lambda score: (not score.tested, score.f1, score.recall, -score.tested, score.name))


def class_table(classes: Sequence[ClassScore]) -> Table:
    """The figures of each class, the worst class first; without a test image, cells are empty."""
    columns = ["rank", "class_name", "f1", "recall", "precision", "test", "right", "train", "taken_for", "times"]
    columns += ["f1_low", "f1_high"]
    rows: list[Sequence[object]] = []
    for rank, score in enumerate(by_failure(classes), start=1):
        measured = [short(score.f1), short(score.recall), short(score.precision)] if score.tested else ["", "", ""]
        other, times = score.most_taken_for or ("", "")
        counts = [score.tested, score.right, score.images["train"]]
        bounds = [short(bound) for bound in score.f1_interval] if score.tested else ["", ""]
        rows.append((rank, harmless(score.name), *measured, *counts, harmless(other), times, *bounds))
    return columns, rows


def confusion_table(classes: Sequence[ClassScore]) -> Table:
    """The confusion matrix, one row for each cell; no rows if it would have too many cells to be readable.

    `share` is the cell's share of the test images of its actual class; `place` and `other_place` give the order of the
    actual and of the predicted classes.
    """
    rows: list[Sequence[object]] = []
    for place, score in enumerate(classes) if len(classes) <= MOST_CLASSES else ():
        for other_place, other in enumerate(classes):
            images = score.right if other is score else score.taken_for.get(other.name, 0)
            share = short(images / score.tested) if score.tested else 0
            rows.append((harmless(score.name), harmless(other.name), images, share, place, other_place))
    return ["actual", "predicted", "images", "share", "place", "other_place"], rows


def confusions_table(classes: Sequence[ClassScore]) -> Table:
    """The most frequent confusions; no rows if the confusion matrix shows all of them."""
    found = [(score, other, images) for score in classes for other, images in score.taken_for.items()]
    found.sort(key=lambda item: (-item[2], item[0].name, item[1]))
    shown = found[:MOST_CONFUSIONS] if len(classes) > MOST_CLASSES else []
    rows: list[Sequence[object]] = [
        (rank, harmless(score.name), harmless(other), images, score.tested)
        for rank, (score, other, images) in enumerate(shown, start=1)
    ]
    return ["rank", "actual", "predicted", "images", "test"], rows


def image_table(classes: Sequence[ClassScore]) -> Table:
    """How many images each class has in each split, the rarest class first."""
    ranked = sorted(classes, key=lambda score: (sum(score.images.values()), score.name))
    rows: list[Sequence[object]] = [
        (rank, harmless(score.name), split, images)
        for rank, score in enumerate(ranked, start=1)
        for split, images in score.images.items()
    ]
    return ["rank", "class_name", "split", "images"], rows


def figure_table(results: Results) -> Table:
    """The figures of both models on both splits that lie between 0 and 1, with 95 % intervals.

    `figure` is the name on the page, `place` its position.
    """
    rows: list[Sequence[object]] = []
    for place, (name, said) in enumerate(FIGURES.items()):
        for model, prefix in (("fine-tuned", ""), ("warm-up", "warm_up_")):
            for split, of_split in (("test", ""), ("validation", "validation_")):
                key = f"{prefix}{of_split}{name}"
                if key in results.test and key in results.intervals:
                    bounds = (short(results.intervals[key][bound]) for bound in ("low", "high"))
                    rows.append((place, said, model, split, short(results.test[key]), *bounds))
    return ["place", "figure", "model", "split", "value", "low", "high"], rows


def reliability_table(results: Results) -> Table:
    """Confidence against accuracy on the test images, as predicted and after temperature scaling."""
    columns = ["probabilities", "confidence", "accuracy", "low", "high", "images"]
    return columns, [[row[column] for column in columns] for row in results.reliability]


def roc_table(results: Results) -> Table:
    """The points of each class's ROC curve; no rows if there are too many classes."""
    return _points(results, ["false_positives", "recall"])


def precision_recall_table(results: Results) -> Table:
    """The points of each class's precision-recall curve; no rows if there are too many classes."""
    return _points(results, ["recall", "precision"])


def _points(results: Results, axes: list[str]) -> Table:
    rows: list[Sequence[object]] = [
        (number, harmless(row["class_name"]), *(row[axis] for axis in axes))
        for number, row in enumerate(results.curves)
    ]
    return ["point", "class_name", *axes], rows


def side_table(shorter_sides: Sequence[tuple[str, int]]) -> Table:
    """The histogram of the images' shorter sides; `at_least`, the lower bound in pixels, is for sorting."""
    counted = sorted((int(re.split(r"\D", label)[0]), label, images) for label, images in shorter_sides)
    return ["at_least", "shorter_side", "images"], [*counted]


def short(value: float) -> str:
    """A number with at most six significant digits: enough for a chart, and no noise in git's diffs."""
    return f"{value:.6g}"
