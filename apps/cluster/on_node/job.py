"""python job.py --origin URL --commit COMMIT --name NAME [--gpus GPUS] [-S OVERRIDE]...

What a Ray job does on the node where Ray placed it: runs `dvc exp run` in a clone of its own, then pushes the outputs
to the DVC remote and the experiment to the git remote. Ray copies only this file of the repository to the node, so it
imports nothing but the standard library. The folder that the environment variable TEMPER_CLUSTER names, by default
/var/tmp/temper-UID, has

    gpus/                  leases of this node's GPUs
    REPOSITORY/clones/1    the clone of a running job, newly made for it; further jobs at the same time use 2, 3, ...
    REPOSITORY/kept/       folders that the .temper/ of all clones share: unfinished phases, downloads, ...
    REPOSITORY/cache/      the DVC cache of all clones, unless TEMPER_CLUSTER_CACHE names another folder
"""

import argparse
import ctypes
import fcntl
import hashlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

# Folders of .temper/ that several runs may use at the same time, so all clones share them. Of the other folders, each
# clone has its own.
SHARED = ("backbones", "batch_sizes", "boxes", "downloads", "looks", "unfinished")
_PAUSES = (0, 5, 20, 60, 180)  # seconds before each attempt to push: the results may have taken hours


class JobError(Exception):
    """The reason, in one line, why the job fails."""


def main() -> None:
    """Runs and pushes one experiment. What it prints, also on failure, is in the job's log."""
    chosen = parsed()
    signal.signal(signal.SIGTERM, _stop)
    os.environ |= settled(own_folder(), chosen.gpus)
    folder = own_folder() / known_as(chosen.origin)
    with clone_of_its_own(folder / "clones") as clone:
        print(f"{chosen.name}: on {socket.gethostname()}, in {clone}", flush=True)
        check_out(clone, chosen.origin, chosen.commit)
        connect(clone, folder)
        if git(clone, "ls-remote", "origin", f"refs/exps/*/*/{chosen.name}"):
            raise JobError(f"expected a name that no experiment on {chosen.origin} has, received {chosen.name}")
        run(clone, chosen.name, chosen.overrides)
        push(clone, chosen.name)


def parsed() -> argparse.Namespace:
    """The command line, as `apps.cluster.jobs` writes it."""
    parser = argparse.ArgumentParser()
    for name in ("--origin", "--commit", "--name"):
        parser.add_argument(name, required=True)
    parser.add_argument("--gpus", type=float, default=0)
    parser.add_argument("-S", dest="overrides", action="append", default=[])
    return parser.parse_args()


def own_folder() -> Path:
    """The folder for all jobs of this user on this node; created if missing.

    Raises:
        JobError: the folder belongs to another user, who could change the code that jobs run.
    """
    folder = Path(os.environ.get("TEMPER_CLUSTER") or f"/var/tmp/temper-{os.getuid()}").resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise JobError(f"expected {folder} to be a folder of user {os.getuid()}, received one of another: remove it")
    return folder


def known_as(origin: str) -> str:
    """The name of a repository's folder: the last part of its address, and a digest of the whole address."""
    stem = origin.rstrip("/").replace(":", "/").rsplit("/", 1)[-1].removesuffix(".git")
    return f"{stem}-{hashlib.sha256(origin.encode()).hexdigest()[:8]}"


def settled(folder: Path, gpus: float) -> dict[str, str]:
    """The environment variables that a run needs on this node.

    If a job asked for GPUs, Ray sets CUDA_VISIBLE_DEVICES to those that it reserved. If it asked for none, Ray leaves
    the variable unset, so the job could lease a GPU that Ray has reserved for another one. This hides all GPUs from it.
    """
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    own = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # stages run this `python`
        "PYTHONPATH": os.pathsep.join(path for path in paths if path and Path(path) != Path(__file__).parent),
        "DVC_SITE_CACHE_DIR": os.environ.get("DVC_SITE_CACHE_DIR", str(folder / "site")),
        "TEMPER_GPUS": os.environ.get("TEMPER_GPUS", str(folder / "gpus")),
        "GIT_TERMINAL_PROMPT": "0",  # fail instead of asking for a password
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
    }
    return own if gpus else own | {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}


@contextmanager
def clone_of_its_own(folder: Path) -> Iterator[Path]:
    """Reserves a path for a clone, at which nothing is yet and which no other job uses; removed at the end.

    The reservation is a file lock, which the system releases however the process ends. A killed job leaves its clone
    behind; the next job that reserves the path deletes it. Paths are numbered from 1 and used again, because DVC keeps
    some data per path, which would pile up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        with (folder / f"{number}.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            place = folder / str(number)
            if place.exists():
                shutil.rmtree(place)
            try:
                yield place
            finally:
                shutil.rmtree(place, ignore_errors=True)
            return


def check_out(clone: Path, origin: str, commit: str) -> None:
    """Clones the repository and checks out a commit. DVC makes commits, so git gets a user's name if it has none."""
    git(clone.parent, "clone", "--quiet", "--no-checkout", origin, str(clone))
    git(clone, "checkout", "--quiet", "--detach", commit)
    for key, value in (("name", "Temper"), ("email", f"temper@{socket.gethostname()}")):
        if not git(clone, "config", "--get", "--default", "", f"user.{key}"):
            git(clone, "config", f"user.{key}", value)


def connect(clone: Path, folder: Path) -> None:
    """Lets a clone share its DVC cache, and the SHARED folders of .temper/, with the other clones on this node."""
    cache = Path(os.environ.get("TEMPER_CLUSTER_CACHE") or folder / "cache").resolve()
    (clone / ".dvc" / "config.local").write_text(f'[cache]\n    dir = "{cache}"\n', encoding="utf-8")
    (clone / ".temper").mkdir(exist_ok=True)
    for name in SHARED:
        kept = folder / "kept" / name
        kept.mkdir(parents=True, exist_ok=True)
        (clone / ".temper" / name).symlink_to(kept)


def run(clone: Path, name: str, overrides: list[str]) -> None:
    """Runs the experiment.

    With `--pull`, DVC first pulls the commit's outputs that this node's cache lacks, and results that another node has
    computed and pushed. `--allow-missing` would pull less, but is not used: before it runs, `dvc exp run` checks out
    the data, which leaves an empty data/raw if data/raw/NAME is missing, and DVC takes that for a change.

    Raises:
        JobError: a stage failed. The stages that finished are pushed, so the next attempt finds them on any node.
    """
    options = [word for override in overrides for word in ("-S", override)]
    code = dvc(clone, "exp", "run", "--pull", "--name", name, *options)
    if code:
        dvc(clone, "push", "--run-cache", "--quiet")
        raise JobError(f"dvc exp run ended with exit code {code}: its lines above say why")


def push(clone: Path, name: str) -> None:
    """Pushes the outputs first and then the experiment, so that no experiment appears without its outputs.

    The experiment is pushed by git, because `dvc exp push` exits with 0 even if the remote has another experiment of
    that name.

    Raises:
        JobError: all attempts failed, over about four minutes: a remote cannot be reached, or refuses the push.
    """
    reference = git(clone, "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}")
    said = ""
    for pause in _PAUSES:
        time.sleep(pause)
        if dvc(clone, "push", "--run-cache"):
            said = "dvc push failed: its lines above say why"
            continue
        try:
            git(clone, "push", "--quiet", "origin", f"{reference}:{reference}")
        except JobError as error:
            said = str(error)
            print(said, flush=True)
            continue
        print(f"{name}: pushed; to have it: dvc exp pull origin {name}", flush=True)
        return
    raise JobError(f"{said}; submit it again: what was computed is in this node's cache")


def git(folder: Path, *arguments: str) -> str:
    """Runs git; returns what it prints.

    Raises:
        JobError: git failed; the message has its error output without the hints.
    """
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if not line.startswith("hint:")]
        raise JobError(f"git {arguments[0]}: {' '.join(said) or 'failed'}")
    return done.stdout.strip()


def dvc(clone: Path, *arguments: str) -> int:
    """Runs dvc, whose output goes to the job's log; returns its exit code.

    The kernel kills dvc when this process ends, even if that is killed, and the stages end with dvc.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    process = subprocess.Popen(
        command,
        cwd=clone,
        stdin=subprocess.DEVNULL,
        preexec_fn=_die_with_the_parent,  # noqa: PLW1509 - this program has one thread
    )
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()


def _die_with_the_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of <linux/prctl.h>


def _stop(number: int, frame: FrameType | None) -> None:
    """Handles the SIGTERM of `ray job stop`: exits, so that dvc is ended and the clone removed.

    Ray kills whatever is left after three seconds.
    """
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    try:
        main()
    except (JobError, OSError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
