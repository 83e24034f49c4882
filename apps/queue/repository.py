"""The repository with the queue: its commit and experiments, git and dvc commands in it, and the queue's lock."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from apps.queue.postings import Run
from temper.base.atomic import atomic_file
from temper.base.errors import TemperError
from temper.settings.check import ROOT

_ABANDONED = 5  # seconds after which a lock of git is considered abandoned
_SECRETS = ("TEMPER_TOKEN",)


class Repository:
    """A clone of the repository with its queue."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.folder = self.root / ".temper" / "queue"
        self._begun = self.folder / "queueing.json"
        # If git was killed while it changed params.yaml for DVC, the file may be missing until `restore` is called.
        has_params = (root / "params.yaml").is_file() or self._begun.exists()
        if not (root / ".dvc").is_dir() or not has_params:
            raise TemperError(
                f"{root}: expected a repository of Temper, found no .dvc or no params.yaml: start it there"
            )
        self.folder.mkdir(parents=True, exist_ok=True)

    def git(self, *arguments: str) -> str:
        """Runs git and returns its output.

        Raises:
            TemperError: it fails.
        """
        done = subprocess.run(
            ["git", *arguments], cwd=self.root, capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            raise TemperError(f"git {arguments[0]}: {done.stderr.strip() or 'failed'}")
        return done.stdout

    def dvc(self, *arguments: str) -> str:
        """Runs dvc and returns its output.

        The output goes to a file, not a pipe: workers that dvc starts inherit it and would keep a pipe open.

        Raises:
            TemperError: it fails.
        """
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(
                [sys.executable, "-m", "dvc", *arguments],
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=self.environment(),
                check=False,
            )
            said.seek(0)
            text = said.read()
        if done.returncode:
            raise TemperError(f"dvc {' '.join(arguments[:2])}: {_last_line(text)}")
        return text

    def environment(self) -> dict[str, str]:
        """The environment for child processes: this interpreter's programs first in PATH, no secrets of the server."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return {name: value for name, value in os.environ.items() if name not in _SECRETS} | {"PATH": path}

    def base(self) -> str:
        """The text of params.yaml in the commit that runs start from."""
        return self.git("show", "HEAD:params.yaml")

    def experiments(self) -> dict[str, str]:
        """The commit of each experiment, by its reference."""
        listed = self.git("for-each-ref", "--format=%(refname) %(objectname)", "refs/exps").splitlines()
        pairs = [line.rsplit(" ", 1) for line in listed]
        return {ref: commit for ref, commit in pairs if ref.count("/") == 4 and not ref.startswith("refs/exps/exec/")}

    def head(self) -> str:
        """The commit that runs start from."""
        return self.git("rev-parse", "HEAD").strip()

    def changed_files(self) -> list[str]:
        """The tracked files with uncommitted changes."""
        return [line[3:] for line in self.git("status", "--porcelain", "--untracked-files=no").splitlines()]

    def uncommitted(self) -> str:
        """Why nothing may be queued now, if tracked files have uncommitted changes; otherwise empty.

        DVC would include such changes in each run.
        """
        some = ", ".join(self.changed_files()[:3])
        return f"expected all changes in the server's clone to be committed, received {some}: commit them" * bool(some)

    def serve_alone(self) -> IO[str]:
        """Locks the repository for this server. The lock lasts as long as the returned file is open.

        Raises:
            TemperError: there is another server.
        """
        held = (self.folder / "server").open("a")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.close()
            raise TemperError(
                f"{self.root}: expected no other server of this queue, found one: use it, or stop it"
            ) from None
        return held

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Holds the lock for writing to the queue, and yields its file descriptor.

        A child process that inherits the descriptor holds the lock, too.
        """
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock.fileno()

    def enqueue(self, every: Sequence[Run], lock: int) -> None:
        """Puts runs into the queue. DVC changes params.yaml for a moment and detaches git's HEAD.

        Args:
            lock: the lock's file descriptor. The child process that queues the runs inherits it, so that the lock is
                held until it has ended, even if this process is killed.

        Raises:
            TemperError: DVC refuses a run; the runs before it are queued.
        """
        self.begin()
        python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, "-m", "apps.queue.enqueue"],
            cwd=self.root,
            input=json.dumps([[run.name, run.overrides] for run in every]),
            capture_output=True,
            text=True,
            pass_fds=[lock],
            env=self.environment() | {"PYTHONPATH": python_path},
            check=False,
        )
        if done.returncode:
            self.restore()
            raise TemperError(_last_line(done.stderr).removeprefix("error: "))
        self._begun.unlink()

    def begin(self) -> None:
        """Records git's branch and commit before DVC detaches HEAD."""
        place = {"branch": self._branch(), "commit": self.head()}
        with atomic_file(self._begun) as partial:
            partial.write_text(json.dumps(place), encoding="utf-8")

    def restore(self) -> str:
        """Restores git's HEAD and params.yaml if a process was killed while it queued a run.

        The lock must be held. While DVC queues a run, HEAD stays at the same commit. So if another commit or branch is
        checked out, somebody has worked here since, and nothing is changed. A changed params.yaml is first saved under
        another name, because it may contain somebody's edits.

        Returns:
            What was done, in words; empty if there was nothing to do.
        """
        if not self._begun.exists():
            return ""
        self._unlock()
        begun = json.loads(self._begun.read_text(encoding="utf-8"))
        if self._branch() not in ("", begun["branch"]) or self.head() != begun["commit"]:
            self._begun.unlink()
            return "left git's HEAD and params.yaml alone: another commit or branch was checked out since the crash"
        kept = self._keep_params()
        if begun["branch"]:
            self.git("symbolic-ref", "HEAD", begun["branch"])
        self.git("reset", "--quiet")
        self.git("checkout", "--quiet", "--", "params.yaml")
        self._begun.unlink()
        return f"put git's HEAD and params.yaml back to what they were before a run was queued{kept}"

    def _unlock(self) -> None:
        """Removes the locks of git and DVC that a killed process left, which would prevent any queueing.

        DVC's is a list of who reads and writes what. It counts only living processes, but refuses a half-written list.
        A living process holds the lock of an object, of a reference or of HEAD only for milliseconds. That of the index
        may be held as long as somebody's editor is open in `git commit`, and that of the packed references as long as
        git tidies up, so these two stay while a git command runs in the repository.
        """
        objects, refs, head, *long = (
            self.root / self.git("rev-parse", "--git-path", name).strip()
            for name in ("objects", "refs", "HEAD.lock", "index.lock", "packed-refs.lock")
        )
        for path in (*objects.glob("??/*.lock"), *refs.rglob("*.lock"), head, *long):
            with suppress(FileNotFoundError):
                _wait_until_abandoned(path)
                if path not in long or not self._git_runs():
                    path.unlink()
        for path in (self.root / ".dvc/tmp/rwlock", self.root / ".dvc/tmp/exps/rwlock"):
            with suppress(FileNotFoundError):
                if not _is_json(path):
                    _wait_until_abandoned(path)
                    if not _is_json(path):
                        path.unlink()

    def _git_runs(self) -> bool:
        """Whether a git command runs in the repository."""
        for process, _ in processes_in(self.root):
            with suppress(psutil.Error):  # it has ended
                if process.name() in ("git", "git.exe"):
                    return True
        return False

    def _branch(self) -> str:
        """The reference of the branch that is checked out; empty if HEAD is detached."""
        asked = ["git", "symbolic-ref", "-q", "HEAD"]
        return subprocess.run(asked, cwd=self.root, capture_output=True, text=True, check=False).stdout.strip()

    def _keep_params(self) -> str:
        """Copies a params.yaml that differs from the committed one to a name made from its checksum.

        Returns:
            A text that says where the copy is; empty if nothing was copied.
        """
        path = self.root / "params.yaml"
        content = path.read_bytes() if path.exists() else b""
        if not content or content == self.base().encode():
            return ""
        copy = self.folder / f"params-{hashlib.sha256(content).hexdigest()[:12]}.yaml"
        with atomic_file(copy) as partial:
            partial.write_bytes(content)
        return f"; what params.yaml held is in {copy.relative_to(self.root)}"


def _wait_until_abandoned(path: Path) -> None:
    """Waits until nobody has written a file for `_ABANDONED` seconds.

    Raises:
        FileNotFoundError: it is not there any more.
    """
    while time.time() - path.stat().st_mtime < _ABANDONED:
        time.sleep(0.2)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def processes_in(root: Path) -> Iterator[tuple[psutil.Process, Path]]:
    """The processes whose working folder is a given one or below it, each with its working folder."""
    for process in psutil.process_iter():
        try:
            place = Path(process.cwd())
        except (psutil.Error, OSError):  # another user's, or it has ended
            continue
        if place.is_relative_to(root):
            yield process, place


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["failed, and said nothing"])[-1]
