"""python -m apps.report [BASE] [REV] [--picture FILE] [--json FILE]

Describes the effect of a change on the model, as Markdown for a pull request: the params that changed, the stages that
ran again, all figures of both models on the test images that both predicted, whether the new model is better, worse or
shows no difference on these images, the classes that gained and lost most, and the photos on which the two disagree.

BASE and REV are commits, branches, tags or experiments, or `workspace`; the defaults are main and workspace.
Predictions come from DVC's cache or remote. No model runs, unless REV has test images that BASE did not have: the model
of BASE then predicts these.
Exit code: 0 compared; 1 nothing could be done; 2 the command line is wrong; 3 no verdict: predictions are missing.
"""

import argparse
import json
import sys
from pathlib import Path

from apps.report import edits, pairing, picture, scoring, text
from apps.report.text import Found
from temper import command_line
from temper.base.atomic import atomic_file
from temper.base.errors import TemperError
from temper.base.texts import write_json
from temper.comparing import revisions
from temper.comparing.markdown import code, listed
from temper.comparing.revisions import WORKSPACE, Absent, Revision

NO_VERDICT = 3  # the exit code
METRICS = "metrics/evaluate/metrics.json"


def find(old: Revision, new: Revision) -> Found:
    """Collects all contents of the report except the picture."""
    found = Found(old, new, edits.params(old, new), edits.stages(old, new))
    for side in (old, new):
        strange = edits.out_of_step(side)
        if strange:
            found.notes.append(
                f"{code(side.name)} is not as `dvc repro` left it, so what is said here may not belong to it: "
                f"{listed(strange)} changed since."
            )
    try:
        members = revisions.read_member(old), revisions.read_member(new)
    except Absent as problem:
        found.problems.append(code(str(problem), 400))
        found.metrics = read_metrics(old), read_metrics(new)
        print(f"error: {problem}", file=sys.stderr)
        return found
    found.pairing = pairing.pair(*members)
    score(found, *members)
    text.compare(found)
    return found


def score(found: Found, before: revisions.Member, after: revisions.Member) -> None:
    """Lets the old model predict test images that only the new revision has, and adds them to the pairing.

    If that is not possible, a note in the report says why.
    """
    assert found.pairing is not None
    if not found.pairing.only_new:
        return
    try:
        rows = scoring.unseen(found.old, after, found.pairing.only_new)
        known = len(found.pairing.only_new) - len(rows)
        if known:
            found.notes.append(
                f"{known:,} of the new test images were in another split of {code(found.old.name)}, where its model "
                "may have learned them: they do not count."
            )
        if rows:
            of_old = scoring.score(found.old, found.new, before, after, rows)
            found.pairing = pairing.extended(found.pairing, after, rows, of_old)
            found.scored = len(rows)
    except TemperError as problem:
        said = f"The model of {code(found.old.name)} was not shown the new images: {code(str(problem), 400)}"
        found.notes.append(said)


def read_metrics(revision: Revision) -> dict[str, float]:
    """The metrics of a revision that are in git; empty if there are none."""
    try:
        content = json.loads(revision.read(METRICS))
    except (Absent, ValueError):
        return {}
    return {name: float(value) for name, value in content.items() if isinstance(value, float)}


def draw(found: Found, path: Path, link: str) -> None:
    """Writes the picture; if that is not possible, a note in the report says why."""
    if found.pairing is None:
        return
    try:
        if picture.write(path, found.pairing, found.new):
            found.picture, found.link = path.as_posix(), link
    except TemperError as problem:
        found.notes.append(f"No picture: {code(str(problem), 400)}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.report",
        description=(__doc__ or "").split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("base", nargs="?", default="main", metavar="BASE", help="what to compare with (default: main)")
    parser.add_argument(
        "rev", nargs="?", default=WORKSPACE, metavar="REV", help=f"what to judge (default: {WORKSPACE})"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="a PNG for the photos on which the two disagree")
    parser.add_argument("--picture-link", default="", metavar="ADDRESS", help="where readers find it, if not there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="a file for the same figures, for programs")
    return parser.parse_args()


def main() -> int:
    """Reads the command line, prints the report and writes the requested files; returns the exit code."""
    chosen = arguments()
    if chosen.picture and chosen.picture.suffix != ".png":
        raise TemperError(f"--picture: expected a name that ends in .png, received {chosen.picture}")
    found = find(revisions.find(chosen.base), revisions.find(chosen.rev))
    if chosen.picture:
        draw(found, chosen.picture, chosen.picture_link)
    if chosen.json:
        with atomic_file(chosen.json) as partial_file:
            write_json(partial_file, text.as_json(found))
    print(text.report(found), end="")
    return NO_VERDICT if found.problems else 0


if __name__ == "__main__":
    command_line.run(main)
