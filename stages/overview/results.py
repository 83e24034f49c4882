"""What the other stages measured, read from metrics/: the one place that knows their files."""

import csv
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.base.errors import TemperError

SPLITS = ("validation", "train")  # of the curves, the one that decides first
MEASURES = ("accuracy", "loss")


@dataclass(frozen=True)
class Phase:
    """One phase of training.

    Attributes:
        name: for people: "warm-up" or "fine-tune".
        curves: the value at each epoch, by split and measure. The first epoch is 1; the fine-tune has validation values
            at epoch 0 too, those of the warm-up that it starts from.
        rates: the learning rate of each epoch; empty where there is none, as in a logistic regression.
        epochs: how many were trained.
        kept: the epoch whose weights were kept; 0: those from before the phase.
        accuracy: on validation, of the weights that were kept.
        parameters: how many numbers could be trained.
        C: of a logistic regression, the one that was kept: each value that was tried is an epoch.
    """

    name: str
    curves: Mapping[tuple[str, str], Mapping[int, float]]
    rates: Mapping[int, float]
    epochs: int
    kept: int
    accuracy: float
    parameters: int
    C: float | None = None


@dataclass(frozen=True)
class ClassScore:
    """How well one class is told from the others, on the test images.

    Attributes:
        images: how many images of it each split has.
        tested: test images of it.
        right: how many of them were recognised.
        f1_interval: the 95 % interval of F1, low and high.
        taken_for: how many of them were taken for which other class.
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
        """The class that it is most often taken for, and how often; of equals the first by name."""
        return min(self.taken_for.items(), key=lambda item: (-item[1], item[0]), default=None)


@dataclass(frozen=True)
class Results:
    """Everything that the page shows.

    Attributes:
        phases: in the order in which they ran.
        data: metrics/normalize/metrics.json, the counts of images.
        test: metrics/evaluate/metrics.json, the figures on the test images.
        classes: in the order of data/classes.txt.
        shorter_sides: (pixels, images), as normalize grouped them.
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
    """Reads what normalize, warm_up, fine_tune and evaluate wrote.

    Raises:
        TemperError: a file is missing or is not what that stage writes.
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
    """Reads a phase's metrics.json and the curves beside it, a TSV for each measure."""
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
    )


def read_classes(root: Path) -> list[ClassScore]:
    """Reads what is known of each class: its images, its scores, and what it was taken for."""
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
    """The values of a TSV of DVCLive by the epoch; its columns are the step, which is the epoch, and the value."""
    with path.open(encoding="utf-8", newline="") as file:
        return {int(row[0]): float(row[-1]) for row in list(csv.reader(file, delimiter="\t"))[1:]}


def _read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
