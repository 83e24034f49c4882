"""python -m apps.predict PHOTO... [--model M] [--top 3] [--csv | --json] [--sheet FILE.png] [--calibrated]

Predicts the classes of photos: files, folders, patterns such as 'holiday/*.jpg', and http(s) URLs. Each photo is
prepared as the card inside the model's file says; params.yaml has no influence.

Answers come in the order of the photos. Photos that cannot be read are listed on stderr and do not stop the others.
Exit code: 0 all photos were read; 1 nothing could be done; 2 the command line is wrong; 3 some could not be read.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from temper import command_line
from temper.base.errors import printable
from temper.base.texts import harmless
from temper.comparing.ensembles import combine
from temper.inference import model_arguments
from temper.inference.models import Answer, answers
from temper.inference.named_photos import expand, read
from temper.photos import Pixels

SHEET = 200  # how many photos a contact sheet shows at most
SHEET_CELL, SHEET_ACROSS = 128, 8  # side of a photo in pixels, photos per row
SOME_FAILED = 3  # the exit code

Guess = tuple[str, float]  # a class and its probability


class Said:
    """An answer as it is printed: the most probable classes of a photo, or why it could not be read."""

    def __init__(self, answer: Answer, classes: list[str], top: int) -> None:
        self.name, self.problem, self.pixels = answer.name, answer.problem, answer.pixels
        self.guesses: list[Guess] = []
        if answer.of_models is not None:
            shares = combine([one[None] for one in answer.of_models], "average")[0]
            order = np.argsort(-shares, kind="stable")[:top]
            self.guesses = [(classes[number], float(shares[number])) for number in order.tolist()]


def as_text(said: Iterable[Said], top: int) -> Iterator[str]:
    """A line for each photo that was read."""
    for one in said:
        if one.problem is None:
            yield f"{printable(one.name)}: " + ", ".join(f"{name} {share:.4f}" for name, share in one.guesses)


def as_csv(said: Iterable[Said], top: int) -> Iterator[str]:
    """A table with a row for each photo: `top` classes and their probabilities, or why it could not be read."""
    columns = [f"{what}_{place}" for place in range(1, top + 1) for what in ("class", "probability")]
    yield csv_line(["path", *columns, "problem"])
    for one in said:
        cells = [cell for name, share in one.guesses for cell in (name, f"{share:.4f}")]
        yield csv_line([one.name, *cells, *[""] * (len(columns) - len(cells)), one.problem or ""])


def csv_line(cells: Iterable[str]) -> str:
    """A row of a CSV table, with cells escaped so that a spreadsheet does not run them as formulas."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([harmless(cell) for cell in cells])
    return line.getvalue()


def as_json(said: Iterable[Said], top: int) -> Iterator[str]:
    """A JSON list with an object for each photo, one per line, each written as soon as it is known."""
    line = "["
    for one in said:
        yield line
        values: dict[str, Any] = {"path": one.name}
        if one.problem is None:
            values["classes"] = [{"class": name, "probability": round(share, 6)} for name, share in one.guesses]
        else:
            values["problem"] = one.problem
        line = json.dumps(values, ensure_ascii=False) + ","
    yield line.removesuffix(",")
    yield "]"


def write_sheet(path: Path, shown: list[Said], total: int) -> None:
    """Writes a contact sheet of the photos as prepared for the first model, with the most probable class of each."""
    from temper import sheets  # noqa: PLC0415 (needed only with --sheet)

    if not shown:
        print(f"{path}: no photo to show: not written", file=sys.stderr)
        return
    strips: list[tuple[str, list[Pixels]]] = []
    for one in shown:
        name, share = one.guesses[0]
        assert one.pixels is not None  # a photo with guesses has been read
        strips.append((f"{printable(Path(one.name).name)}: {name} {share:.2f}", [one.pixels]))
    sheets.write_sheet(path, strips, per_strip=1, across=SHEET_ACROSS, cell=SHEET_CELL)
    if total > len(shown):
        print(f"{path}: the first {len(shown):,} of {total:,} photos", file=sys.stderr)


def arguments() -> argparse.Namespace:
    """The command line."""
    description = (__doc__ or "").split("\n\n", 1)[1]
    parser = argparse.ArgumentParser(
        prog="python -m apps.predict", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="a file, a folder, a pattern or an address")
    model_arguments.add_to(parser)
    parser.add_argument("--top", type=int, default=3, help="how many classes to show of each photo (default: 3)")
    parser.add_argument(
        "--calibrated", action="store_true", help="scaled, so that of those at 0.8 about 80 %% are right"
    )
    as_what = parser.add_mutually_exclusive_group()
    as_what.add_argument("--csv", action="store_const", const=as_csv, dest="lines", help="a table, to stdout")
    as_what.add_argument("--json", action="store_const", const=as_json, dest="lines", help="a list, to stdout")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="a contact sheet with the answers")
    parser.add_argument(
        "--allow-private-addresses", action="store_true", help="ask hosts of your own network or machine, too"
    )
    chosen = parser.parse_args()
    if chosen.top < 1:
        parser.error(f"--top: expected 1 or more, received {chosen.top}")
    if chosen.sheet and chosen.sheet.suffix.lower() != ".png":
        parser.error(f"--sheet: expected a name that ends in .png, received {chosen.sheet}")
    return chosen


class Work:
    """Iterates over the answers, counts those that failed, and keeps the photos for the contact sheet."""

    def __init__(self, chosen: argparse.Namespace, alone: bool) -> None:
        self._models = model_arguments.open_models(chosen, chosen.calibrated, alone)
        self._chosen = chosen
        self.top = min(chosen.top, len(self._models.classes))
        self.shown: list[Said] = []
        self.total = self.failed = 0

    def __iter__(self) -> Iterator[Said]:
        photos = list(expand(self._chosen.photos))
        # No progress bar on a terminal that shows the answers.
        hidden = True if sys.stdout.isatty() else None
        with tqdm(total=len(photos), desc="predict", unit="photo", delay=1, disable=hidden) as bar:
            for answer in answers(self._models, read(photos, self._chosen.allow_private_addresses)):
                bar.update()
                self.total += 1
                one = Said(answer, self._models.classes, self.top)
                if one.problem:
                    self.failed += 1
                    bar.write(f"{printable(one.name)}: {printable(one.problem)}", file=sys.stderr)
                elif self._chosen.sheet and len(self.shown) < SHEET:
                    self.shown.append(one)
                yield one


def main(alone: bool = False) -> int:
    """Reads the command line and prints the answers; returns the exit code.

    Args:
        alone: whether this process does nothing else, so that TensorFlow's start-up messages may be suppressed in it.
    """
    chosen = arguments()
    work = Work(chosen, alone)
    for line in (chosen.lines or as_text)(work, work.top):
        print(line)
    if chosen.sheet:
        write_sheet(chosen.sheet, work.shown, work.total - work.failed)
    if work.failed:
        print(f"{work.failed:,} of {work.total:,} photos could not be read", file=sys.stderr)
    return 0 if not work.failed else 1 if work.failed == work.total else SOME_FAILED


if __name__ == "__main__":
    command_line.run(partial(main, alone=True))
