"""Reads files at a revision of this repository: a commit, branch, tag, experiment, or the working folder.

Nothing is checked out: files come from git, and outputs of stages from DVC's cache or else from its remote.
"""

import subprocess
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from temper import classes, predictions
from temper.base.errors import TemperError
from temper.comparing.ensembles import guesses
from temper.predictions import Predictions

WORKSPACE = "workspace"


class Absent(TemperError):
    """A revision does not have a file, or neither cache nor remote has its content."""


@dataclass(frozen=True)
class Revision:
    """A revision of the repository, from which files can be read.

    Attributes:
        name: the name that the user gave.
        commit: the full hash; `None`: the working folder.
    """

    name: str
    commit: str | None = None

    @property
    def described(self) -> str:
        """The name, followed by the first digits of the commit unless the name begins with them."""
        short = (self.commit or "")[:7]
        return self.name if not short or self.name.startswith(short) else f"{self.name} ({short})"

    @cached_property
    def _files(self) -> Any:
        import dvc.api  # noqa: PLC0415 (takes a second, and only reading a file needs it)

        return dvc.api.DVCFileSystem(".", rev=self.commit)

    def has(self, path: str) -> bool:
        """Whether the revision has a file, even if neither cache nor remote has its content."""
        return Path(path).exists() if self.commit is None else bool(self._ask("exists", path, path))

    def read(self, path: str) -> bytes:
        """The bytes of a file.

        Raises:
            Absent: the revision has no such file, neither cache nor remote has its content, or DVC fails otherwise.
        """
        if self.commit is None:
            try:
                return Path(path).read_bytes()
            except OSError as error:
                raise self._absent(path, error.strerror or str(error)) from None
        content: bytes = self._ask("read_bytes", path, path)
        return content

    def get(self, path: str, folder: Path) -> Path:
        """Copies a folder of outputs into `folder` and returns the copy; for the working folder, the original itself.

        Raises:
            Absent: as in `read`.
        """
        if self.commit is None:
            if not Path(path).is_dir():
                raise self._absent(path, "no such folder")
            return Path(path)
        copy = folder / Path(path).name
        self._ask("get", path, path, copy.as_posix(), recursive=True)
        return copy

    def _ask(self, what: str, path: str, *arguments: str, **options: bool) -> Any:
        """Calls a method of DVC's file system. Every error becomes `Absent`: remotes raise what their clients raise."""
        try:
            return getattr(self._files, what)(*arguments, **options)
        except Exception as error:
            raise self._absent(path, str(error)) from None

    def _knows(self, path: str) -> bool:
        """Whether git or dvc.lock of the revision lists a file, even if its content is nowhere to be had."""
        try:
            info = self._files.info(path)
        except FileNotFoundError:
            return False
        except Exception:  # as in `_ask`
            return True
        return "md5" in info or not info.get("dvc_info", {}).get("isout")

    def _absent(self, path: str, problem: str) -> Absent:
        problem = problem.strip().split("\n", 1)[0]
        if self.commit is None:
            return Absent(f"{self.name}: expected {path}: {problem}; run dvc pull {path}, or dvc repro")
        if not self._knows(path):
            return Absent(
                f"{self.name}: expected {path}, but that revision has none: no dvc repro that wrote it was committed "
                "there; name a later one"
            )
        return Absent(
            f"{self.name}: expected {path} in DVC's cache or remote: {problem}; run dvc push --all-commits where it "
            "was made"
        )


def find(name: str) -> Revision:
    """The revision of a name: `workspace`, or a commit, branch, tag or experiment.

    A branch that only the remote `origin` has is found too, because CI checks out a pull request without the other
    branches.

    Raises:
        TemperError: there is no such revision.
    """
    if name == WORKSPACE:
        return Revision(name)
    for candidate in (name, f"origin/{name}"):
        commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{candidate}^{{commit}}")
        if commit:
            return Revision(name, commit)
    found = git("for-each-ref", "--format=%(objectname)", f"refs/exps/**/{name}").splitlines()
    if found:
        return Revision(name, found[-1])
    if not git("rev-parse", "--git-dir"):
        raise TemperError(f"{name}: expected a revision, but this folder is in no git repository; go to your clone")
    hint = "dvc exp list --all shows the experiments"
    if git("rev-parse", "--is-shallow-repository") == "true":
        hint = "this clone is shallow: git fetch --unshallow gets the rest (fetch-depth: 0 of actions/checkout)"
    raise TemperError(f"{name}: expected a commit, branch, tag, experiment or {WORKSPACE}, found none; {hint}")


def git(*arguments: str) -> str:
    """The output of a git command; empty if it fails or git is not installed."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@dataclass(frozen=True)
class Member:
    """The predictions of a revision's model.

    Attributes:
        name: the name of the revision.
        classes: the class names, in the order of the probabilities.
        test: the predictions of the test images.
        unlabelled: the predictions of the unlabelled images, which may be none.
    """

    name: str
    classes: list[str]
    test: Predictions
    unlabelled: Predictions


def read_member(revision: str | Revision) -> Member:
    """Reads the predictions of a revision, from the cache or the remote.

    Raises:
        Absent: the revision has none, or neither cache nor remote has them.
        TemperError: there is no such revision, or the predictions do not fit its classes.
    """
    at = find(revision) if isinstance(revision, str) else revision
    names = at.read(classes.PATH).decode().splitlines()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "predictions.parquet"
        copy.write_bytes(at.read(predictions.PATH))
        try:
            test, unlabelled = (predictions.read(split, copy) for split in ("test", "unlabelled"))
        except TemperError as error:
            raise TemperError(str(error).replace(str(copy), f"{at.name}: {predictions.PATH}")) from None
    wide = test.probabilities.shape[1] if len(test.image_ids) else len(names)
    strange = set(test.class_names) - {None} - set(names)
    if strange or wide != len(names) or list(test.predicted) != guesses(test.probabilities, names):
        raise TemperError(
            f"{at.name}: expected {predictions.PATH} of the {len(names)} classes in {classes.PATH}, received one of "
            "another list; run dvc repro there"
        )
    return Member(at.name, names, test, unlabelled)
