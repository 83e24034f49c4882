"""How a retraining uses git, DVC and GTO. It runs their commands as a person would, and every step can be repeated."""

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
OWN = ("dvc.lock", "metrics")  # files tracked by git that `dvc repro` changes
TRAILER = "Retrained-From"  # the trailer of the commits that a retraining makes


def run(*command: str, shown: bool = False) -> str:
    """Runs a program of this environment and returns what it printed.

    Args:
        shown: whether its output goes to stderr as it comes, and is not returned.

    Raises:
        TemperError: it failed; the message has the last line that it printed.
    """
    folder = Path(sys.executable).parent
    path = os.pathsep.join([str(folder), os.environ.get("PATH", "")])  # so that stages run with this Python, too
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
    """The branch that is checked out; `None` if a commit is (detached HEAD)."""
    with suppress(TemperError):
        return run("git", "symbolic-ref", "--short", "--quiet", "HEAD")
    return None


def require_clean(allowed: Sequence[str] = ()) -> None:
    """Refuses to start if files tracked by git were changed, because a promotion must not commit unrelated work.

    Args:
        allowed: files and folders that may differ, because a retraining that was killed changed them.

    Raises:
        TemperError: other files were changed, or there is no commit to start from.
    """
    listed = run("git", "diff", "--name-only", "-z", "HEAD").split("\0")
    changed = [name for name in listed if name and not any(_within(name, one) for one in allowed)]
    if changed:
        names = ", ".join(changed[:3]) + (f", ... ({len(changed)} in all)" if len(changed) > 3 else "")
        raise TemperError(f"expected all changes committed before a retraining, found changed: {names}; commit them")


def _within(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}/")


def require_name() -> None:
    """Raises a TemperError if git has no name and address to commit with: better now than after hours of training."""
    run("git", "var", "GIT_COMMITTER_IDENT")


def require_remotes() -> None:
    """Raises a TemperError if nothing could be pushed in the end, because there is no branch or no remote."""
    if branch() is None:
        raise TemperError("--push: expected a branch to push, but a commit is checked out; git switch to the branch")
    run("git", "remote", "get-url", "origin")
    remote = ""
    with suppress(TemperError):  # whether DVC fails or prints nothing
        remote = run(sys.executable, "-m", "dvc", "config", "core.remote")
    if not remote:
        raise TemperError("--push: expected a default remote of DVC, found none; dvc remote add --default")


def reproduce(updates: Sequence[str]) -> None:
    """Updates imported data (.dvc files) and runs the pipeline; waits for other `dvc` commands in this repository."""
    for name in updates:
        run(sys.executable, "-m", "dvc", "--wait-for-lock", "update", name, shown=True)
    run(sys.executable, "-m", "dvc", "--wait-for-lock", "repro", shown=True)


def rewritten() -> tuple[str, ...]:
    """The .dvc files that differ from their version in git: `dvc repro` rewrites those of `dvc add`ed files."""
    listed = run("git", "diff", "--name-only", "--diff-filter=M", "-z", "HEAD", "--", "*.dvc").split("\0")
    return tuple(name for name in listed if name)


def restore(journal: Journal) -> None:
    """Restores the working folder, files of git and of DVC, to the commit from which the retraining started.

    Only the outputs of the pipeline and the updated imports are checked out. `dvc add`ed files stay as they are now,
    because newer photos may have arrived during the training.
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
    """The version in GTO's stage `prod`, such as "v0.2.0"; `None`: there is none."""
    state = json.loads(run("gto", "show", "--json") or "{}")
    version: str | None = state.get(ARTIFACT, {}).get("stage", {}).get(STAGE)
    return version


def tag_of(version: str) -> str:
    """The tag that registers a version."""
    return f"{ARTIFACT}@{version}"


def is_done(journal: Journal) -> bool:
    """Whether HEAD has the model that a retraining accepted, so that only tags and pushes may be missing."""
    if head() == journal.base:  # there was nothing to commit
        version = in_production()
        tags = run("git", "tag", "--points-at", "HEAD").splitlines()
        return version not in (None, journal.replaced) and tag_of(str(version)) in tags
    text = run("git", "log", "-1", "--format=%P%n%(trailers:key=" + TRAILER + ",valueonly)")
    return text.split() == [journal.base, journal.base]


def commit(journal: Journal, title: str) -> None:
    """Commits only the files that the retraining changed; does nothing if that is done, or nothing was changed.

    Raises:
        TemperError: somebody has committed or checked out something else since the retraining started.
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
    """Registers HEAD as a version and assigns it to `prod`, unless that is done already; returns the version."""
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
    """The tags of a version that git's remote does not have, or has on another commit."""
    tags = _tags(version)
    there = run("git", "ls-remote", "origin", *(f"refs/tags/{name}" for name in tags)).splitlines()
    return [name for name in tags if f"{run('git', 'rev-parse', f'refs/tags/{name}')}\trefs/tags/{name}" not in there]


def require_publishable() -> None:
    """Raises a TemperError if the version in production was never pushed and HEAD does not contain its commit.

    This happens if the remote refused a push and `git pull --rebase` followed: the tags stay behind on a commit that no
    branch contains.
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
    """Pushes the outputs, then the branch and the tags, these all or none; skips what the remotes have already.

    Raises:
        TemperError: the remote has commits that are not here, or cannot be reached.
    """
    run(sys.executable, "-m", "dvc", "--wait-for-lock", "push", shown=True)
    refs = [f"refs/tags/{name}" for name in _tags(version)]
    run("git", "push", "--quiet", "--atomic", "origin", f"HEAD:refs/heads/{branch()}", *refs)
