"""Reads what the other stages measured from metrics/; the only module of this stage that knows their files."""

import csv
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.base.errors import TemperError

SPLITS = ("validation", "train")  # of the curves; validation first, because it decides which epoch is kept
MEASURES = ("accuracy", "loss")


@dataclass(frozen=True)
class Phase:
    """One phase of training.

    Attributes:
        name: on the page: "warm-up" or "fine-tune".
        curves: the value at each epoch, by split and measure. The first epoch is 1. The fine-tune also has validation
            values at epoch 0: those of the warm-up that it starts from.
        rates: the learning rate of each epoch; empty for a logistic regression.
        epochs: how many epochs were trained.
        kept: the epoch whose weights were kept; 0: the weights from before the phase.
        halfway: whether the weights that were kept are halfway to those of that epoch.
        refused: whether nothing was kept although an epoch was better, because it may have been so by chance.
        accuracy: on validation, with the weights that were kept.
        parameters: how many parameters were trainable.
        C: the chosen value of C of a logistic regression, where each tried value counts as an epoch; else None.
    """

    name: str
    curves: Mapping[tuple[str, str], Mapping[int, float]]
    rates: Mapping[int, float]
    epochs: int
    kept: int
    accuracy: float
    parameters: int
    C: float | None = None
    halfway: bool = False
    refused: bool = False


@dataclass(frozen=True)
class ClassScore:
    """How well the model recognizes a class, on the test images.

    Attributes:
        images: how many images of the class each split has.
        tested: how many test images the class has.
        right: how many of them were classified correctly.
        taken_for: how many of them were taken for each other class.
        f1_interval: the 95 % interval of F1, low and high.
    """

    name: str
    precision: float
    recall: float
    f1: float
    images: Mapping[str, int]
    tested: int
    right: int
    taken_for: Mapping[str, int]
    f1_interval: tuple[float, float] = (0.0, 1.0)

    @property
    def most_taken_for(self) -> tuple[str, int] | None:
        """The class that it is most often taken for, and how often; the first by name if several are equal."""
        return min(self.taken_for.items(), key=lambda item: (-item[1], item[0]), default=None)


@dataclass(frozen=True)
class Results:
    """Everything that the page shows.

    Attributes:
        phases: warm-up and fine-tune.
        data: metrics/normalize/metrics.json, the counts of images.
        test: metrics/evaluate/metrics.json, the figures on the test images.
        classes: in the order of data/classes.txt.
        shorter_sides: the histogram of the images' shorter sides from normalize: (range of pixels, images).
        intervals: metrics/evaluate/intervals.json, the 95 % intervals of the figures in `test`: "low" and "high".
        reliability: the rows of metrics/evaluate/reliability.csv, confidence against accuracy.
        curves: the rows of metrics/evaluate/curves.csv, the points of the ROC and precision-recall curves.
    """

    phases: list[Phase]
    data: Mapping[str, int]
    test: Mapping[str, Any]
    classes: list[ClassScore]
    shorter_sides: list[tuple[str, int]]
    intervals: Mapping[str, Mapping[str, float]]
    reliability: list[dict[str, str]]
    curves: list[dict[str, str]]


def read_results(folder: str | Path = "metrics") -> Results:
    """Reads the metrics of normalize, warm_up, fine_tune and evaluate.

    Raises:
        TemperError: a file is missing or does not have the expected contents.
    """
    root = Path(folder)
    try:
        return Results(
            [read_phase("warm-up", root / "warm_up"), read_phase("fine-tune", root / "fine_tune")],
            _read_json(root / "normalize/metrics.json"),
            _read_json(root / "evaluate/metrics.json"),
            read_classes(root),
            [(row["shorter_side"], int(row["images"])) for row in _read_rows(root / "normalize/sizes.csv")],
            _read_json(root / "evaluate/intervals.json"),
            _read_rows(root / "evaluate/reliability.csv"),
            _read_rows(root / "evaluate/curves.csv"),
        )
    except (FileNotFoundError, KeyError, ValueError) as error:
        received = f"{type(error).__name__}: {error}"
        raise TemperError(f"overview: expected the figures of all stages, received {received}; run dvc repro") from None


def read_phase(name: str, folder: Path) -> Phase:
    """Reads a phase's metrics.json and its curves, a TSV file for each measure."""
    curves = folder / "plots/metrics"
    figures = {key.removeprefix(f"{folder.name}_"): value for key, value in _read_json(folder / "metrics.json").items()}
    return Phase(
        name,
        {(split, measure): _read_curve(curves / split / f"{measure}.tsv") for split in SPLITS for measure in MEASURES},
        {} if "C" in figures else _read_curve(curves / "learning_rate.tsv"),
        epochs=figures["epochs"],
        kept=figures["epoch"],
        accuracy=figures["best_val_accuracy"],
        parameters=figures["trainable_parameters"],
        C=figures.get("C"),
        halfway=0 < figures.get("share", 1) < 1,
        refused=figures["epoch"] == 0 and "gain" in figures,
    )


def read_classes(root: Path) -> list[ClassScore]:
    """Reads the figures of each class: its images, its scores, and what it was taken for."""
    images = {row["class_name"]: row for row in _read_rows(root / "normalize/classes.csv")}
    taken = Counter((row["actual"], row["predicted"]) for row in _read_rows(root / "evaluate/confusion.csv"))
    taken_for: dict[str, dict[str, int]] = {}
    for (actual, predicted), count in taken.items():
        if actual != predicted:
            taken_for.setdefault(actual, {})[predicted] = count
    return [
        ClassScore(
            name := row["class_name"],
            float(row["precision"] or 0),
            float(row["recall"] or 0),
            float(row["f1"] or 0),
            {split: int(images[name][split]) for split in ("train", "validation", "test")},
            int(row["images"]),
            taken[name, name],
            taken_for.get(name, {}),
            (float(row["f1_low"] or 0), float(row["f1_high"] or 1)),
        )
        for row in _read_rows(root / "evaluate/per_class.csv")
    ]


def _read_curve(path: Path) -> dict[int, float]:
    """The values in a TSV file of DVCLive by epoch: the first column is the step (the epoch), the last the value."""
    with path.open(encoding="utf-8", newline="") as file:
        return {int(row[0]): float(row[-1]) for row in list(csv.reader(file, delimiter="\t"))[1:]}


def _read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
