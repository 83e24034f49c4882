"""python -m apps.evaluate --images PLACE [--model M ...] [--metrics accuracy,f1,auc] [--out DIR]

Measures trained models on labelled photos of your own. PLACE is a folder with a folder for each class, a table (.csv or
.tsv) of path and class, or a folder of photos without classes, which are only predicted. Each photo is prepared as the
card inside a model's file says.

Prints the figures of each model, and of several models combined, with the same 95 % intervals as the stage `evaluate`.
With --out it writes metrics.json, predictions.csv, per_class.csv, confusion.csv, reliability.csv, curves.csv and
mistakes.png; of several models, the last six describe the combination.
Exit code: 0 all photos were read; 1 nothing could be done; 2 the command line is wrong; 3 some could not be read.
"""

import argparse
import heapq
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from temper import command_line
from temper.base.atomic import atomic_file
from temper.base.errors import TemperError, printable
from temper.base.texts import write_csv, write_json
from temper.comparing.ensembles import (
    Measured,
    as_json,
    combine,
    differences,
    guesses,
    measure_all,
    print_figures,
    shown,
)
from temper.inference import labelled_photos, model_arguments
from temper.inference.labelled_photos import Labelled
from temper.inference.models import Answer, Models, answers
from temper.inference.named_photos import read
from temper.measures.calibration import Labels, Probabilities
from temper.measures.figure_tables import TABLES
from temper.measures.figures import measured
from temper.photos import Pixels

METRICS = {
    "accuracy": ("accuracy",),
    "top": ("top_3_accuracy", "top_5_accuracy"),
    "precision": ("macro_precision", "weighted_precision"),
    "recall": ("macro_recall",),
    "f1": ("macro_f1", "weighted_f1"),
    "auc": ("macro_auc",),
    "loss": ("loss", "scaled_loss"),
    "calibration": ("calibration_error", "scaled_calibration_error", "temperature"),
    "images": ("images", "macro_over_classes"),
}
DEFAULT_METRICS = "accuracy,f1,auc,images"
MISTAKES = 60  # how many photos mistakes.png shows at most: the most confident mistakes
MISTAKE_CELL, MISTAKES_ACROSS = 128, 8  # side of a photo in pixels, photos per row
SOME_FAILED = 3  # the exit code


@dataclass
class Found:
    """The models' predictions for all photos, in their order.

    Attributes:
        photos: all photos.
        labels: the number of each photo's class; None: unlabelled.
        of_models: for each photo that was read, the models' probabilities, (models, classes).
        mistakes: a heap of the most confident mistakes: probability, minus the photo's number, caption, pixels.
        problems: why photos could not be read, by the photo's number.
    """

    photos: list[Labelled]
    labels: list[int | None]
    of_models: list[Probabilities] = field(default_factory=list)
    mistakes: list[tuple[float, int, str, Pixels]] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)

    def rows(self, with_label: bool = True) -> list[int]:
        """The numbers of the photos that were read and have a label, or of all that were read."""
        read_ones = (number for number in range(len(self.photos)) if number not in self.problems)
        return [number for number in read_ones if not with_label or self.labels[number] is not None]


def chosen_metrics(text: str) -> list[str]:
    """The names of the figures that `--metrics` asks for."""
    wanted = [name.strip() for name in text.split(",")]
    unknown = [name for name in wanted if name not in METRICS]
    if unknown:
        raise TemperError(f"--metrics: expected some of {', '.join(METRICS)}, received {', '.join(unknown)}")
    return [figure for name in wanted for figure in METRICS[name]]


def label(
    photos: list[Labelled], classes: Sequence[str], skip: bool, place: str
) -> tuple[list[Labelled], list[int | None]]:
    """The photos to use, and the number of each photo's class; prints which names were matched to other spellings.

    Args:
        skip: whether photos whose class the model does not know are left out.
        place: where the photos are, for the error message.

    Raises:
        TemperError: the model does not know a class, and `skip` is False.
    """
    meant = labelled_photos.match(dict.fromkeys(one.published for one in photos if one.published is not None), classes)
    renamed = [f"{printable(name)} as {of}" for name, of in meant.items() if of not in (None, name)]
    if renamed:
        print(f"taken: {labelled_photos.listed(renamed)}")
    strange = labelled_photos.strangers(photos, meant)
    if strange:
        refuse_strangers(strange, classes, skip, place)
    kept = [one for one in photos if one.published is None or meant[one.published] is not None]
    numbers = {name: number for number, name in enumerate(classes)}
    return kept, [None if one.published is None else numbers[str(meant[one.published])] for one in kept]


def refuse_strangers(strange: Counter[str], classes: Sequence[str], skip: bool, place: str) -> None:
    """Lists the names that are no classes of the model, with their photos; raises a TemperError unless `skip`."""
    names = labelled_photos.listed(f"{printable(name)} ({count})" for name, count in strange.items())
    total = sum(strange.values())
    if not skip:
        raise TemperError(
            f"{place}: expected classes of the model ({labelled_photos.listed(classes)}), received others with {total} "
            f"photos: {names}; rename them, or leave them out by --skip-strangers"
        )
    print(f"left out, no classes of the model: {total} photos of {names}")


def look(models: Models, found: Found, by: str, private: bool) -> None:
    """Predicts all photos one after the other and stores the results in `found`; lists unreadable photos on stderr."""
    encoded = read((one.photo for one in found.photos), private)
    bar = tqdm(answers(models, encoded), "evaluate", len(found.photos), unit="photo", delay=1, disable=None)
    for number, answer in enumerate(bar):
        if answer.of_models is None or answer.pixels is None:
            found.problems[number] = str(answer.problem)
            bar.write(f"{printable(answer.name)}: {printable(str(answer.problem))}", file=sys.stderr)
        else:
            found.of_models.append(answer.of_models)
            keep_mistake(found, models, number, answer, by)


def keep_mistake(found: Found, models: Models, number: int, answer: Answer, by: str) -> None:
    """Keeps a misclassified photo if it is among the most confident mistakes so far."""
    actual = found.labels[number]
    assert answer.of_models is not None and answer.pixels is not None
    shares = combine([one[None] for one in answer.of_models], by)[0]
    guess = int(shares.argmax())
    if actual is None or actual == guess:
        return
    names = models.classes
    caption = f"{printable(Path(answer.name).name)}: {names[actual]}, taken for {names[guess]} {shares[guess]:.2f}"
    heapq.heappush(found.mistakes, (float(shares[guess]), -number, caption, answer.pixels))
    if len(found.mistakes) > MISTAKES:
        heapq.heappop(found.mistakes)


def measure_models(
    models: Models, found: Found, by: str
) -> tuple[dict[str, Measured], dict[str, Probabilities], Labels]:
    """The figures and probabilities of each model and, last, of several models combined; and the photos' labels."""
    places = {number: place for place, number in enumerate(found.rows(with_label=False))}
    of_all = np.stack([found.of_models[places[number]] for number in found.rows()])
    labels = np.array([found.labels[number] for number in found.rows()], np.int32)
    figures: dict[str, Measured] = {}
    probabilities: dict[str, Probabilities] = {}
    for place, (path, predictor) in enumerate(models.predictors.items()):
        probabilities[path] = of_all[:, place]
        of_model = measured(probabilities[path], labels, predictor.card.temperature)
        values = {**of_model.values, "temperature": of_model.temperature}
        figures[path] = {name: (value, of_model.intervals.get(name)) for name, value in values.items()}
    if len(models.predictors) > 1:
        name = f"{by} of {len(models.predictors)}"
        probabilities[name] = combine(list(probabilities.values()), by)
        figures[name] = measure_all(probabilities[name], labels)
    return figures, probabilities, labels


def write_predictions(path: Path, models: Models, found: Found, by: str) -> None:
    """Writes for each photo its class, the prediction of all models combined and of each, or why it was not read."""
    names, paths = models.classes, list(models.predictors)
    several = [f"predicted by {path}" for path in paths] if len(paths) > 1 else []
    of_photos = iter(found.of_models)

    def rows() -> Iterator[list[object]]:
        for number, one in enumerate(found.photos):
            actual = found.labels[number]
            cells: list[object] = [one.photo.name, "" if actual is None else names[actual]]
            if number in found.problems:
                yield [*cells, "", "", *[""] * len(several), found.problems[number]]
                continue
            of_models = next(of_photos)
            shares = combine([of[None] for of in of_models], by)
            each = guesses(of_models, names) if several else []
            yield [*cells, *guesses(shares, names), f"{shares.max():.4f}", *each, ""]

    with atomic_file(path) as partial:
        write_csv(partial, ["path", "class_name", "predicted", "probability", *several, "problem"], rows())


def write_mistakes(path: Path, found: Found) -> None:
    """Writes a contact sheet of the most confident mistakes; without any, removes the sheet of an earlier run."""
    from temper import sheets  # noqa: PLC0415 (imported only when needed)

    path.unlink(missing_ok=True)
    surest = sorted(found.mistakes, reverse=True)
    strips = [(caption, [pixels]) for _, _, caption, pixels in surest]
    sheets.write_sheet(path, strips, per_strip=1, across=MISTAKES_ACROSS, cell=MISTAKE_CELL)


def report(models: Models, found: Found, chosen: argparse.Namespace) -> None:
    """Prints the figures, and writes them with their tables."""
    figures, probabilities, labels = measure_models(models, found, chosen.by)
    last = list(figures)[-1]
    wanted = [name for name in chosen_metrics(chosen.metrics) if any(name in of for of in figures.values())]
    print_figures(figures, wanted)
    written: dict[str, object] = {"models": {of: as_json(one) for of, one in figures.items()}}
    if len(models.predictors) > 1:
        members = [of for of in figures if of != last]
        best = min(members, key=lambda of: (-figures[of]["accuracy"][0], figures[of]["loss"][0]))
        gains = differences(probabilities[last], probabilities[best], labels)
        print(f"\n{last} minus {best}, the most accurate model on these photos (95 % intervals):")
        for name, (value, interval) in gains.items():
            print(f"{name}  {shown(value, interval, '+')}")
        written |= {"ensemble": last, "difference": {"minus": best, "figures": as_json(gains)}}
    if chosen.out:
        temperature = figures[last].get("temperature", (1.0, None))[0]
        of_last = measured(probabilities[last], labels, temperature)
        with atomic_file(chosen.out / "metrics.json") as partial:
            write_json(partial, written)
        for name, table in TABLES.items():
            with atomic_file(chosen.out / name) as partial:
                write_csv(partial, *table(of_last, models.classes))
        write_mistakes(chosen.out / "mistakes.png", found)


def arguments() -> argparse.Namespace:
    """The command line."""
    description = (__doc__ or "").split("\n\n", 1)[1]
    parser = argparse.ArgumentParser(
        prog="python -m apps.evaluate", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", required=True, metavar="PLACE", help="class folders, photos, or a table")
    model_arguments.add_to(parser, several=True)
    parser.add_argument("--by", choices=["average", "vote"], default="average", help="how several are combined")
    parser.add_argument(
        "--metrics",
        default=DEFAULT_METRICS,
        help=f"the figures to print, of {', '.join(METRICS)} (default: {DEFAULT_METRICS}); --out writes all",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="a folder for figures, tables and pictures")
    parser.add_argument(
        "--skip-strangers", action="store_true", help="leave out photos whose class is none of the model's"
    )
    parser.add_argument(
        "--allow-private-addresses", action="store_true", help="ask hosts of your own network or machine, too"
    )
    return parser.parse_args()


def main(alone: bool = False) -> int:
    """Reads the command line, prints and writes the results; returns the exit code.

    Args:
        alone: whether this process does nothing else, so that TensorFlow's start-up messages may be suppressed in it.
    """
    chosen = arguments()
    chosen_metrics(chosen.metrics)  # fails here if names are wrong, before any work
    photos = labelled_photos.read_labelled(chosen.images)
    if not chosen.out and all(one.published is None for one in photos):
        raise TemperError(
            f"{chosen.images}: expected class folders or a table with classes to measure on, received {len(photos)} "
            "photos alone; to have them predicted, name a folder for that by --out"
        )
    models = model_arguments.open_models(chosen, alone=alone)
    found = Found(*label(photos, models.classes, chosen.skip_strangers, chosen.images))
    look(models, found, chosen.by, chosen.allow_private_addresses)
    if found.rows():
        report(models, found, chosen)
    else:
        print("no photo with a class could be read: no figures")
    if chosen.out and found.photos:
        write_predictions(chosen.out / "predictions.csv", models, found, chosen.by)
        print(f"written to {chosen.out}")
    if found.problems:
        print(f"{len(found.problems):,} of {len(found.photos):,} photos could not be read", file=sys.stderr)
    return 0 if not found.problems and found.photos else SOME_FAILED if found.of_models else 1


if __name__ == "__main__":
    command_line.run(partial(main, alone=True))
