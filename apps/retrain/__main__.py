"""python -m apps.retrain [--margin 0.02] [--update FILE.dvc] [--dry-run] [--push]

Run it when there are new photos where a source of params.yaml looks for them. It runs the pipeline, compares the new
model with the one in production on the same test images, and promotes the new one if it is not worse. A promotion is a
commit of dvc.lock and metrics/ and two GTO tags, classifier@vX.Y.Z and classifier#prod#N. If the new model does not
pass, the working folder is left as it was.

Prints a report as Markdown; --out is the folder for report.md and report.json, and for unlike.csv and unlike.png, which
show the photos that are unlike the training photos.
Exit code: 0 whatever the verdict; 1 nothing could be decided; 2 the command line is wrong.
"""

import argparse
import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from apps.retrain import journal, report, repository
from apps.retrain.journal import Journal
from apps.retrain.report import Found
from apps.retrain.rule import MARGIN, Verdict
from temper import command_line
from temper.base import gpus, quiet
from temper.base.atomic import atomic_file
from temper.base.errors import TemperError
from temper.base.texts import write_json
from temper.inference import model_arguments

OUT = journal.FOLDER / "report"
EVALUATED = Path("metrics/evaluate/metrics.json")


def begin(chosen: argparse.Namespace) -> Journal:
    """Starts a new retraining, or continues one that was killed; returns how far it has come.

    Raises:
        TemperError: there are uncommitted changes, or git or the remotes are not configured for what is asked.
    """
    if chosen.push:
        repository.require_remotes()
    if not chosen.dry_run:
        repository.require_name()
    noted = journal.read()
    if noted and noted.accepted is not None and repository.is_done(noted):
        if chosen.dry_run:
            raise TemperError(f"{journal.PATH}: a promotion was cut off; run without --dry-run first to finish it")
        return noted
    if chosen.push:
        repository.require_publishable()
    updated = tuple(dict.fromkeys([*(noted.updated if noted else ()), *chosen.update]))
    is_begun = noted is not None and noted.base == repository.head()
    repository.require_clean((*repository.OWN, *updated, *repository.rewritten()) if is_begun else ())
    fresh = Journal(repository.head(), updated if is_begun else tuple(chosen.update))
    fresh.write()
    return fresh


def examine(chosen: argparse.Namespace) -> Found:
    """Compares the model that the pipeline has just trained with the one in production."""
    version = repository.in_production()
    if version is None:
        figures = json.loads(EVALUATED.read_text(encoding="utf-8"))
        first = (
            f"There is no version in the stage {repository.STAGE} yet, so this model becomes the first: "
            f"{figures['accuracy']:.2%} of {figures['test_images']:,} test images are right."
        )
        return Found(None, Verdict(True, [first]))
    gpus.lease()
    quiet.keep_out_noise()
    from apps.retrain import arrivals, rule, scoring  # noqa: PLC0415 (only now may Keras be imported)

    old = scoring.read_old(version, repository.tag_of(version))
    if hashlib.sha256(old.model).digest() == hashlib.sha256(Path(model_arguments.DEFAULT).read_bytes()).digest():
        return Found(version, Verdict(False, [f"The model is the one that is in production already, {version}."]))
    found = arrivals.arrived(old)
    labelled = {image_id for image_id, (_, name, _) in found.photos.items() if name is not None}
    tested, guesses = scoring.score(old, labelled)
    far = arrivals.find_unlike(old, set(found.photos))
    if far is not None:
        arrivals.write_unlike(chosen.out, found, far)
    compared = tested.compared(old.ids("test"))
    labels = arrivals.check_labels(old, tested, found, guesses, far.above if far is not None else ())
    verdict = rule.decide(compared, labels, chosen.margin, chosen.trust_labels)
    return Found(version, verdict, tested, tuple(compared), found, far, labels)


def retrain(chosen: argparse.Namespace) -> str:
    """Runs the whole retraining and returns the report."""
    noted = begin(chosen)
    if noted.accepted is None:
        repository.reproduce(noted.updated)
        noted = replace(noted, rewritten=repository.rewritten())
        noted.write()
        chosen.out.mkdir(parents=True, exist_ok=True)
        for name in ("unlike.csv", "unlike.png", "dvc.lock"):  # left by an earlier run
            (chosen.out / name).unlink(missing_ok=True)
        found = examine(chosen)
        text = report.as_markdown(found, chosen.margin)
        if chosen.dry_run or not found.verdict.promote:
            done = leave(chosen, noted, found)
            text = finish(chosen, text, done)
            with atomic_file(chosen.out / "report.json") as partial:
                write_json(partial, report.as_json(found, done, chosen.margin))
            journal.end()
            return text
        with atomic_file(chosen.out / "report.json") as partial:
            write_json(partial, report.as_json(found, "promoted", chosen.margin))
        noted = replace(noted, accepted=text, replaced=found.version)
        noted.write()
    assert noted.accepted is not None
    repository.commit(noted, "Retrain the classifier on the photos that there are now")
    version = repository.promote()
    if chosen.push:
        repository.publish(version)
    text = finish(chosen, noted.accepted, f"Promoted: {repository.tag_of(version)} is in the stage {repository.STAGE}.")
    journal.end()
    return text


def leave(chosen: argparse.Namespace, noted: Journal, found: Found) -> str:
    """Restores the working folder to its state before the retraining; returns a text that says what was done.

    The new model's dvc.lock is kept beside the report, so that the model can still be checked out.
    """
    lock = chosen.out / "dvc.lock"
    shutil.copy("dvc.lock", lock)
    repository.restore(noted)
    pushed = ""
    if chosen.push and found.version is not None and repository.unpublished(found.version):
        repository.publish(found.version)  # an earlier promotion was not pushed: refused, or without --push
        pushed = f"Pushed {repository.tag_of(found.version)}, which origin did not have. "
    if found.version is not None and not found.tested:
        return f"{pushed or 'Nothing was done. '}There is nothing new to promote."
    what = "Would be promoted; this was a dry run." if found.verdict.promote else "Not promoted."
    back = f"The working folder is as it was. To look at the new model: `cp {lock} dvc.lock && dvc checkout dvc.yaml`."
    return f"{pushed}{what} {back}"


def finish(chosen: argparse.Namespace, text: str, done: str) -> str:
    """Writes report.md, the report headed by what was done, and returns its text."""
    whole = f"# Retraining\n\n{done}\n\n{text}"
    chosen.out.mkdir(parents=True, exist_ok=True)
    with atomic_file(chosen.out / "report.md") as partial:
        partial.write_text(whole, encoding="utf-8")
    return whole


def arguments() -> argparse.Namespace:
    """The command line."""
    description = (__doc__ or "").split("\n\n", 1)[1]
    parser = argparse.ArgumentParser(
        prog="python -m apps.retrain", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--margin",
        type=_margin,
        default=MARGIN,
        help=f"by how much of accuracy the new model may be worse, 0 to 1 (default: {MARGIN}); 0: it must be better",
    )
    parser.add_argument(
        "--update",
        action="append",
        default=[],
        metavar="FILE.dvc",
        help="import this anew first, as `dvc update` does: photos in a bucket",
    )
    parser.add_argument("--trust-labels", action="store_true", help="the labels of the new photos were looked at")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"for the report (default: {OUT})")
    ending = parser.add_mutually_exclusive_group()
    ending.add_argument("--dry-run", action="store_true", help="train and compare, but promote nothing")
    ending.add_argument("--push", action="store_true", help="push outputs, branch and tags of a new version")
    return parser.parse_args()


def _margin(given: str) -> float:
    value = float(given)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 1, received {given}")
    return value


def main() -> int:
    """Reads the command line and prints the report; returns the exit code."""
    chosen = arguments()
    with journal.alone():
        sys.stdout.write(retrain(chosen))
    return 0


if __name__ == "__main__":
    command_line.run(main)
