"""python -m apps.track [REV]: logs a finished experiment to the MLflow server of params.yaml.

Without REV, it logs the experiment of the working folder, as `dvc repro` left it. REV is a name that `dvc exp show`
lists, or any name of a commit that git knows. If the experiment is on the server already, its run is completed or
updated, never duplicated. So it is safe to run this again: after the server was down, or for experiments that are older
than the server.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from temper.base import loading
from temper.base.errors import TemperError
from temper.base.loading import PARAMS
from temper.settings.trackers import Mlflow, Settings
from temper.tracking import finished, server


@contextmanager
def experiment_of(rev: str | None, with_model: bool) -> Iterator[finished.Finished]:
    """The experiment of the working folder, or of a revision, whose files come from git and DVC's cache.

    Args:
        rev: an experiment or commit; None: the working folder.
        with_model: whether the model's file is needed, too.

    Raises:
        TemperError: there is no such revision, or DVC does not have its files here.
    """
    if rev is None:
        yield finished.read(Path())
        return
    commit = finished.git(Path(), "rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}") or _experiment(rev)
    with tempfile.TemporaryDirectory() as folder:
        _get(commit, rev, Path(folder), with_model)
        yield finished.read(Path(folder), name=rev, commit=commit)


def _experiment(rev: str) -> str:
    """The commit of an experiment with this name in DVC."""
    found = finished.git(Path(), "for-each-ref", "--format=%(objectname)", f"refs/exps/**/{rev}").splitlines()
    if not found:
        raise TemperError(f"{rev}: expected an experiment or a commit; dvc exp show lists them")
    return found[-1]


def _get(commit: str, rev: str, folder: Path, with_model: bool) -> None:
    """Copies the files of an experiment that are logged into a folder."""
    from dvc.api import DVCFileSystem  # noqa: PLC0415
    from dvc.exceptions import DvcException  # noqa: PLC0415

    wanted = [PARAMS, "metrics", *([finished.MODEL.as_posix()] if with_model else [])]
    try:
        files = DVCFileSystem(".", rev=commit)
        for name in wanted:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            files.get(name, (folder / name).as_posix(), recursive=files.isdir(name))
    except (DvcException, OSError) as error:
        raise TemperError(f"{rev}: {error}; run dvc pull, or dvc exp pull") from None


def main(arguments: list[str]) -> None:
    """Reads the command line and logs the experiment."""
    parser = argparse.ArgumentParser("python -m apps.track", description="Logs a finished experiment to MLflow.")
    parser.add_argument("rev", nargs="?", metavar="REV", help="an experiment or a commit; none: the working folder")
    rev = parser.parse_args(arguments).rev
    settings = loading.load(Settings).trackers.mlflow or Mlflow()
    with experiment_of(rev, settings.model) as experiment:
        print(server.log(experiment, settings))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except TemperError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
