"""python job.py --origin URL --commit COMMIT --name NAME [--gpus GPUS] [-S OVERRIDE]...

What a Ray job does on the node where Ray placed it: `dvc exp run` in a clone of its own, then a push of the outputs to
the DVC remote and of the experiment to the git remote. Ray brings this file to the node and nothing else of the
repository, so it imports only the standard library. Below the folder that TEMPER_CLUSTER names lie

    gpus/                  leases of this node's GPUs
    REPOSITORY/clones/1    a clone for each job that runs at the same time, each made anew
    REPOSITORY/kept/       what their .temper/ share: unfinished phases, downloads, ...
    REPOSITORY/cache/      DVC's cache of all of them, unless TEMPER_CLUSTER_CACHE names another folder
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

# Folders of .temper/ that processes of several runs may use at the same time. The others belong to one clone.
SHARED = ("backbones", "batch_sizes", "boxes", "downloads", "looks", "unfinished")
_PAUSES = (0, 5, 20, 60, 180)  # seconds before each attempt to push what may have taken hours to compute


class JobError(Exception):
    """Why the job failed, in one line."""


def main() -> None:
    """Runs and pushes one experiment; what it does and why it fails stands in the job's log."""
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
    """The folder of all jobs on this node, for this user alone.

    Raises:
        JobError: somebody else made it, who could change what is run.
    """
    folder = Path(os.environ.get("TEMPER_CLUSTER") or f"/var/tmp/temper-{os.getuid()}").resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise JobError(f"expected {folder} to be a folder of user {os.getuid()}, received one of another: remove it")
    return folder


def known_as(origin: str) -> str:
    """The name of a repository's folder: that of its address, and what tells it from others of that name."""
    stem = origin.rstrip("/").replace(":", "/").rsplit("/", 1)[-1].removesuffix(".git")
    return f"{stem}-{hashlib.sha256(origin.encode()).hexdigest()[:8]}"


def settled(folder: Path, gpus: float) -> dict[str, str]:
    """The environment variables that a run needs here.

    Ray names the GPUs of a job that asked for some. One that asked for none would see all of them, and our leases would
    give it one that is another job's for Ray.
    """
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    own = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # the stages' `python`
        "PYTHONPATH": os.pathsep.join(path for path in paths if path and Path(path) != Path(__file__).parent),
        "DVC_SITE_CACHE_DIR": os.environ.get("DVC_SITE_CACHE_DIR", str(folder / "site")),
        "TEMPER_GPUS": os.environ.get("TEMPER_GPUS", str(folder / "gpus")),
        "GIT_TERMINAL_PROMPT": "0",  # nobody is here to type a password
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
    }
    return own if gpus else own | {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}


@contextmanager
def clone_of_its_own(folder: Path) -> Iterator[Path]:
    """The place for a clone that no other job uses, empty; removed at the end.

    The system gives a lock back however its process ends. The clone of a job that was killed lies there until the next
    one takes its place. Places have numbers, so that what DVC keeps for each path does not pile up.
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
    """Clones the repository at a commit. DVC commits experiments there, so git must know a name."""
    git(clone.parent, "clone", "--quiet", "--no-checkout", origin, str(clone))
    git(clone, "checkout", "--quiet", "--detach", commit)
    for key, value in (("name", "Temper"), ("email", f"temper@{socket.gethostname()}")):
        if not git(clone, "config", "--get", "--default", "", f"user.{key}"):
            git(clone, "config", f"user.{key}", value)


def connect(clone: Path, folder: Path) -> None:
    """Lets a clone share DVC's cache, and what its stages keep, with the other clones of this node."""
    cache = Path(os.environ.get("TEMPER_CLUSTER_CACHE") or folder / "cache").resolve()
    (clone / ".dvc" / "config.local").write_text(f'[cache]\n    dir = "{cache}"\n', encoding="utf-8")
    (clone / ".temper").mkdir(exist_ok=True)
    for name in SHARED:
        kept = folder / "kept" / name
        kept.mkdir(parents=True, exist_ok=True)
        (clone / ".temper" / name).symlink_to(kept)


def run(clone: Path, name: str, overrides: list[str]) -> None:
    """Runs the experiment. What the commit has and this node's cache has not is pulled first, and so is what another
    node computed and pushed.

    Without `--allow-missing`, which would pull less: `dvc exp run` checks out before it runs, which leaves an empty
    data/raw where data/raw/NAME is missing, and takes that for a change.

    Raises:
        JobError: a stage failed; those that finished are pushed, so that the next attempt finds them on any node.
    """
    options = [word for override in overrides for word in ("-S", override)]
    code = dvc(clone, "exp", "run", "--pull", "--name", name, *options)
    if code:
        dvc(clone, "push", "--run-cache", "--quiet")
        raise JobError(f"dvc exp run ended with exit code {code}: its lines above say why")


def push(clone: Path, name: str) -> None:
    """Pushes the outputs and then the experiment, which so is never there without them.

    git pushes the experiment: `dvc exp push` ends with exit code 0 also where the remote has another one of that name.

    Raises:
        JobError: a remote could not be reached for minutes, or did not take it.
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
    """What git prints.

    Raises:
        JobError: it fails; with what it says, but for its hints.
    """
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if not line.startswith("hint:")]
        raise JobError(f"git {arguments[0]}: {' '.join(said) or 'failed'}")
    return done.stdout.strip()


def dvc(clone: Path, *arguments: str) -> int:
    """Runs dvc, which prints into the job's log; returns its exit code. It dies with this process, however that ends,
    and the stages die with it.
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
    """Answers `ray job stop`, which kills whatever is left after three seconds."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    try:
        main()
    except (JobError, OSError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
