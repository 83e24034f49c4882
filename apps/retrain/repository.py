"""What a retraining asks of git, DVC and GTO. Each is run as a person would run it, and every step can be repeated."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from apps.retrain.journal import Journal
from temper.base.errors import TemperError

ARTIFACT, STAGE = "classifier", "prod"  # as in dvc.yaml's `artifacts`
FIRST = "v0.1.0"
OWN = ("dvc.lock", "metrics")  # what `dvc repro` changes of what git tracks
TRAILER = "Retrained-From"  # of the commits that are made here


def run(*command: str, shown: bool = False) -> str:
    """Runs a program of this environment and returns what it printed.

    Args:
        shown: what it prints is shown on stderr as it comes, and not returned.

    Raises:
        TemperError: it failed; with the last line that it printed.
    """
    folder = Path(sys.executable).parent
    path = os.pathsep.join([str(folder), os.environ.get("PATH", "")])  # the stages are run by this Python, too
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr if shown else subprocess.PIPE,
            stderr=None if shown else subprocess.PIPE,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise TemperError(f"expected the program {command[0]}, found none; install requirements.lock") from None
    if done.returncode:
        lines = (done.stderr or done.stdout or "").strip().splitlines() or ["what it said stands above"]
        raise TemperError(f"{' '.join(command)}: failed: {lines[-1]}")
    return (done.stdout or "").strip()


def head() -> str:
    """The commit that is checked out."""
    return run("git", "rev-parse", "--verify", "HEAD^{commit}")


def branch() -> str | None:
    """The branch that is checked out; `None`: a commit is."""
    with suppress(TemperError):
        return run("git", "symbolic-ref", "--short", "--quiet", "HEAD")
    return None


def require_clean(allowed: Sequence[str] = ()) -> None:
    """Refuses to start where files that git tracks were changed: a promotion must not carry work of others with it.

    Args:
        allowed: files and folders that may differ, because a retraining that was killed changed them.

    Raises:
        TemperError: something else was changed, or there is no commit to start from.
    """
    listed = run("git", "diff", "--name-only", "-z", "HEAD").split("\0")
    changed = [name for name in listed if name and not any(_within(name, one) for one in allowed)]
    if changed:
        names = ", ".join(changed[:3]) + (f", ... ({len(changed)} in all)" if len(changed) > 3 else "")
        raise TemperError(f"expected all changes committed before a retraining, found changed: {names}; commit them")


def _within(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}/")


def require_name() -> None:
    """Raises a TemperError if git does not know who commits: better now than after hours of training."""
    run("git", "var", "GIT_COMMITTER_IDENT")


def require_remotes() -> None:
    """Raises a TemperError if nothing could be pushed in the end: there is no branch, or no remote."""
    if branch() is None:
        raise TemperError("--push: expected a branch to push, but a commit is checked out; git switch to the branch")
    run("git", "remote", "get-url", "origin")
    remote = ""
    with suppress(TemperError):  # whether DVC fails or prints nothing
        remote = run(sys.executable, "-m", "dvc", "config", "core.remote")
    if not remote:
        raise TemperError("--push: expected a default remote of DVC, found none; dvc remote add --default")


def reproduce(updates: Sequence[str]) -> None:
    """Gets what was imported anew, and runs the pipeline; waits for another `dvc` that is at work here."""
    for name in updates:
        run(sys.executable, "-m", "dvc", "--wait-for-lock", "update", name, shown=True)
    run(sys.executable, "-m", "dvc", "--wait-for-lock", "repro", shown=True)


def rewritten() -> tuple[str, ...]:
    """The .dvc files that git tracks and that differ from it: `dvc repro` rewrites that of a `dvc add`ed file."""
    listed = run("git", "diff", "--name-only", "--diff-filter=M", "-z", "HEAD", "--", "*.dvc").split("\0")
    return tuple(name for name in listed if name)


def restore(journal: Journal) -> None:
    """Brings the working folder back to the commit from which the retraining started: files of git and of DVC.

    Files that people `dvc add`ed stay as they are now, for newer photos may have arrived during the training: only the
    outputs of the pipeline and what was updated are checked out.
    """
    for name in (*OWN, *journal.updated, *journal.rewritten):
        if run("git", "ls-tree", "--name-only", journal.base, "--", name):
            run("git", "restore", f"--source={journal.base}", "--staged", "--worktree", "--", name)
    made = ["dvc.yaml"] if run("git", "ls-tree", "--name-only", journal.base, "--", "dvc.lock") else []
    if targets := [*made, *journal.updated]:  # without any, DVC would check out everything
        checkout = ("checkout", "--force", "--allow-missing", *targets)
        run(sys.executable, "-m", "dvc", "--wait-for-lock", *checkout, shown=True)


# --- Versions


def in_production() -> str | None:
    """The version that is in the stage `prod`, such as "v0.2.0"; `None`: there is none."""
    state = json.loads(run("gto", "show", "--json") or "{}")
    version: str | None = state.get(ARTIFACT, {}).get("stage", {}).get(STAGE)
    return version


def tag_of(version: str) -> str:
    """The tag that registers a version."""
    return f"{ARTIFACT}@{version}"


def is_done(journal: Journal) -> bool:
    """Whether what is checked out is what a retraining accepted: only tags and pushes may be missing."""
    if head() == journal.base:  # there was nothing to commit
        version = in_production()
        tags = run("git", "tag", "--points-at", "HEAD").splitlines()
        return version not in (None, journal.replaced) and tag_of(str(version)) in tags
    text = run("git", "log", "-1", "--format=%P%n%(trailers:key=" + TRAILER + ",valueonly)")
    return text.split() == [journal.base, journal.base]


def commit(journal: Journal, title: str) -> None:
    """Commits what the retraining changed and nothing else, unless that is done or nothing was changed.

    Raises:
        TemperError: somebody has committed or checked out something else since it started.
    """
    own = [name for name in (*OWN, *journal.updated, *journal.rewritten) if Path(name).exists()]
    if head() != journal.base:
        if is_done(journal):
            return
        raise TemperError(
            f"HEAD: expected the commit {journal.base[:10]} from which the retraining started, found {head()[:10]}, so "
            f"nothing was promoted; `git restore --staged --worktree {' '.join(own)}`, and start it again: what was "
            "trained is in DVC's cache"
        )
    run("git", "add", "--", *own)  # `commit --only` does not take files that are new to git
    if run("git", "diff", "--cached", "--name-only", "--", *own):
        run("git", "commit", "--quiet", "-m", title, "-m", f"{TRAILER}: {journal.base}", "--only", "--", *own)


def promote() -> str:
    """Registers the commit as a version and assigns it to `prod`, as far as that is not done; returns the version."""
    tags = run("git", "tag", "--points-at", "HEAD", "--list", f"{ARTIFACT}@v*").splitlines()
    if not tags:
        any_before = run("git", "tag", "--list", f"{ARTIFACT}@v*")
        how = ["--bump-minor"] if any_before else ["--version", FIRST]
        run("gto", "register", ARTIFACT, *how)
        tags = run("git", "tag", "--points-at", "HEAD", "--list", f"{ARTIFACT}@v*").splitlines()
    version = tags[-1].removeprefix(f"{ARTIFACT}@")
    if in_production() != version:
        run("gto", "assign", ARTIFACT, "--version", version, "--stage", STAGE)
    return version


def _tags(version: str) -> list[str]:
    """The tag that registers a version, and those that assign it to `prod`."""
    stages = run("git", "tag", "--points-at", f"{tag_of(version)}^{{commit}}", "--list", f"{ARTIFACT}#{STAGE}#*")
    return [tag_of(version), *stages.splitlines()]


def unpublished(version: str) -> list[str]:
    """The tags of a version that the remote of git does not have, or has on another commit."""
    tags = _tags(version)
    there = run("git", "ls-remote", "origin", *(f"refs/tags/{name}" for name in tags)).splitlines()
    return [name for name in tags if f"{run('git', 'rev-parse', f'refs/tags/{name}')}\trefs/tags/{name}" not in there]


def require_publishable() -> None:
    """Raises a TemperError if the version in production was never pushed and HEAD does not contain its commit.

    A push that the remote refused, followed by `git pull --rebase`, leaves its tags behind on a commit of no branch.
    """
    version = in_production()
    if version is None or run("git", "tag", "--merged", "HEAD", "--list", tag_of(version)):
        return
    if missing := unpublished(version):
        raise TemperError(
            f"--push: expected {tag_of(version)}, which is in production, in the history of HEAD or on origin, found "
            f"it in neither: was its commit rebased? `git merge {tag_of(version)}`, or forget the version by "
            f"`git tag --delete {' '.join(missing)}`; then start it again"
        )


def publish(version: str) -> None:
    """Pushes the outputs, then the branch and the tags, these all or none; what is there already is left as it is.

    Raises:
        TemperError: the remote has commits that are not here, or cannot be reached.
    """
    run(sys.executable, "-m", "dvc", "--wait-for-lock", "push", shown=True)
    refs = [f"refs/tags/{name}" for name in _tags(version)]
    run("git", "push", "--quiet", "--atomic", "origin", f"HEAD:refs/heads/{branch()}", *refs)
