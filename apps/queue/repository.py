"""The repository whose queue it is: its commit and its experiments, the programs git and dvc, and the queue's lock."""

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

from apps.queue.postings import Run
from temper.base.atomic import atomic_file
from temper.base.errors import TemperError
from temper.settings.check import ROOT

_ABANDONED = 5  # seconds
_SECRETS = ("TEMPER_TOKEN",)


class Repository:
    """A clone with its queue."""

    def __init__(self, root: Path) -> None:
        if not (root / ".dvc").is_dir() or not (root / "params.yaml").is_file():
            raise TemperError(
                f"{root}: expected a repository of Temper, found no .dvc or no params.yaml: start it there"
            )
        self.root = root.resolve()
        self.folder = self.root / ".temper" / "queue"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._begun = self.folder / "queueing.json"

    def git(self, *arguments: str) -> str:
        """What git prints.

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
        """What dvc prints; to a file, since the workers that it starts inherit where it prints.

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
        """That of this process for what it starts: with this interpreter's programs, without the server's secrets."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return {name: value for name, value in os.environ.items() if name not in _SECRETS} | {"PATH": path}

    def base(self) -> str:
        """The params.yaml of the commit that runs start from."""
        return self.git("show", "HEAD:params.yaml")

    def experiments(self) -> dict[str, str]:
        """The commit of each experiment, by its reference."""
        listed = self.git("for-each-ref", "--format=%(refname) %(objectname)", "refs/exps").splitlines()
        pairs = [line.rsplit(" ", 1) for line in listed]
        return {ref: commit for ref, commit in pairs if ref.count("/") == 4 and not ref.startswith("refs/exps/exec/")}

    def head(self) -> str:
        """The commit that runs start from."""
        return self.git("rev-parse", "HEAD").strip()

    def uncommitted(self) -> str:
        """Why nothing may be queued now: tracked files are not as they were committed, and DVC would take them into
        each run. Empty if they all are.
        """
        lines = self.git("status", "--porcelain", "--untracked-files=no").splitlines()
        some = ", ".join(line[3:] for line in lines[:3])
        return f"expected all changes in the server's clone to be committed, received {some}: commit them" * bool(some)

    def serve_alone(self) -> IO[str]:
        """A file that this process holds as the only server of the repository, as long as it is open.

        Raises:
            TemperError: there is another one.
        """
        held = (self.folder / "server").open("a")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.close()
            raise TemperError(f"{self.root}: expected no other server of this queue, found one: ask that one") from None
        return held

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Holds the lock of all that writes the queue; what is started with the descriptor holds it too."""
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock.fileno()

    def enqueue(self, every: Sequence[Run], lock: int) -> None:
        """Puts runs into the queue. DVC changes params.yaml for a moment and detaches git's HEAD.

        Args:
            lock: the descriptor, which the process that does it inherits: if this one is killed, nobody else begins.

        Raises:
            TemperError: DVC refuses one; those before it are queued.
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
        """Writes down where HEAD is, before DVC detaches it."""
        place = {"branch": self._branch(), "commit": self.head()}
        with atomic_file(self._begun) as partial:
            partial.write_text(json.dumps(place), encoding="utf-8")

    def restore(self) -> str:
        """Puts git's HEAD and params.yaml back, if a process was killed while it queued; returns what it did, in words,
        and nothing where there was nothing to do.

        The lock must be held. DVC stays at the commit, so where another one or another branch is checked out, people
        have gone on since, and everything is left to them. What params.yaml held is kept: it may be an edit of theirs.
        """
        if not self._begun.exists():
            return ""
        self._unlock_references()
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

    def _unlock_references(self) -> None:
        """Removes the locks of DVC's references that a killed process left: while one is there, nothing can be queued.

        A living process holds one for milliseconds.
        """
        folder = Path(self.git("rev-parse", "--git-path", "refs/exps").strip())
        for path in (self.root / folder).rglob("*.lock"):
            with suppress(FileNotFoundError):
                while time.time() - path.stat().st_mtime < _ABANDONED:
                    time.sleep(0.2)
                path.unlink()

    def _branch(self) -> str:
        """The reference of the branch that is checked out; empty where HEAD is detached."""
        asked = ["git", "symbolic-ref", "-q", "HEAD"]
        return subprocess.run(asked, cwd=self.root, capture_output=True, text=True, check=False).stdout.strip()

    def _keep_params(self) -> str:
        """Copies a params.yaml that is not as it was committed, under a name by its content; says where to."""
        path = self.root / "params.yaml"
        content = path.read_bytes() if path.exists() else b""
        if not content or content == self.base().encode():
            return ""
        copy = self.folder / f"params-{hashlib.sha256(content).hexdigest()[:12]}.yaml"
        with atomic_file(copy) as partial:
            partial.write_bytes(content)
        return f"; what params.yaml held is in {copy.relative_to(self.root)}"


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["failed, and said nothing"])[-1]
