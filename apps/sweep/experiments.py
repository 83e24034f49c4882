"""A trial as a DVC experiment in a copy of the repository: started, found again, watched, ended, read."""

import csv
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from apps.sweep.settings import Objective
from temper.base.errors import TemperError
from temper.base.paths import scratch
from temper.tracking.finished import git

Points = list[tuple[int, float]]  # the figure after each epoch, the first of which is 1
_PATIENCE = 60  # seconds that DVC has to put its copy away
_RUNS = Path(".dvc/tmp/exps/run")  # what DVC notes of the copies that it works in
_SHOWN = 300


@dataclass
class Experiment:
    """One `dvc exp run --temp`, known by its name.

    A driver that is killed leaves its experiments running; the next one finds them by their names.
    """

    name: str
    overrides: list[str]
    stage: str
    log: Path
    _process: "subprocess.Popen[bytes] | None" = None
    _group: int | None = None
    _interrupted: float | None = None  # when, by the clock that time.monotonic reads
    _forgotten: list[Path] = field(default_factory=list)

    def begin(self) -> None:
        """Starts it, unless it runs or has finished already."""
        if self.commit():
            return
        self._group = leader(self.name)
        if self._group is None:
            self._start()
            self._group = self._process.pid if self._process else None

    def _start(self) -> None:
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "exp", "run", "--temp", "--name", self.name]
        command += [word for override in self.overrides for word in ("-S", override)]
        own = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # the stages' `python` is ours
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, self.stage],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PATH": own},
                start_new_session=True,  # the signals that end it reach its stage too, and no one else
            )

    def is_running(self) -> bool:
        """Whether its `dvc` lives."""
        if self._process is not None:
            return self._process.poll() is None
        if self._group is not None and leader(self.name) is None:
            self._group = None
        return self._group is not None

    def commit(self) -> str:
        """The commit that DVC keeps it under; empty where it has not finished."""
        return git(Path(), "for-each-ref", "--format=%(objectname)", f"refs/exps/**/{self.name}")

    def interrupt(self) -> None:
        """Does what Ctrl-C would: the stage ends with 130, DVC removes its copy and keeps no result. Called again, it
        kills what does not end.
        """
        first = self._interrupted is None
        self._interrupted = self._interrupted or time.monotonic()
        if self._group is not None and (first or time.monotonic() - self._interrupted > _PATIENCE):
            with suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGINT if first else signal.SIGKILL)

    def end(self) -> None:
        """Interrupts it and waits until it has ended."""
        while self.is_running():
            self.interrupt()
            time.sleep(0.1)

    def prune(self) -> None:
        """Interrupts it for good: what its phase has saved in order to go on is not needed."""
        if self._interrupted is None:
            self._forgotten = self._unfinished()
        self.interrupt()

    def forget(self) -> None:
        """Removes what a pruned phase has left; called when it has ended."""
        for state in self._forgotten:
            shutil.rmtree(state, ignore_errors=True)

    def _unfinished(self) -> list[Path]:
        """The folders of unfinished phases that its processes hold."""
        found = []
        for lock in scratch("unfinished").glob("*.lock"):
            with suppress(OSError, ValueError):
                if os.getpgid(int(lock.read_text(encoding="utf-8"))) == self._group:
                    found.append(lock.with_suffix(""))
        return found

    def has_run(self) -> list[str]:
        """The stages that it really ran, so far."""
        with suppress(OSError):
            return re.findall(r"^Running stage '(.+?)'", self.log.read_text(encoding="utf-8", errors="replace"), re.M)
        return []

    def points(self, aim: Objective) -> Points:
        """The curve of the objective while its phase trains; empty before.

        The copy begins with the curve of the commit that it started from, until its own phase begins.
        """
        copy = self._copy() if aim.is_curve and aim.stage in self.has_run() else None
        if copy is None:
            return []
        try:
            return read_curve((copy / _table(aim)).read_text(encoding="utf-8"), aim)
        except OSError:
            return []

    def _copy(self) -> Path | None:
        for note in _RUNS.glob("*/*.run"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                content = json.loads(note.read_text(encoding="utf-8"))
                if content["name"] == self.name:
                    return Path(content["root_dir"], content["wdir"] or "")
        return None

    def result(self, aim: Objective) -> tuple[float, Points]:
        """The objective of a finished experiment, and its curve if it is one.

        Raises:
            TemperError: it has no such figure.
        """
        commit = self.commit()
        if aim.is_curve:
            with opened(commit, _table(aim)) as file:
                points = read_curve(file.read_text(encoding="utf-8"), aim)
            return best_of(points, aim), points
        path = f"metrics/{aim.stage}/metrics.json"
        value = json.loads(git(Path(), "show", f"{commit}:{path}") or "{}").get(aim.figure)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise TemperError(f"{path}: expected a number as {aim.figure}, received {value}")
        return float(value), []

    def other(self, aim: Objective) -> dict[str, float]:
        """The other figure of a head of the warm-up: its accuracy beside its loss, or its loss beside its accuracy."""
        if aim.is_curve or aim.stage != "warm_up":
            return {}
        name = "loss" if aim.name.endswith("accuracy") else "accuracy"
        kept = json.loads(git(Path(), "show", f"{self.commit()}:metrics/warm_up/metrics.json") or "{}")
        value = kept.get(f"warm_up_best_val_{name}")
        return {f"warm_up/validation/{name}": float(value)} if isinstance(value, int | float) else {}

    def reason(self) -> str:
        """Why it has no result, by its log: the line of the stage, or else of DVC."""
        with suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            for start in ("error: ", "MemoryError", "ERROR: "):
                said = [line for line in lines if line.startswith(start)]
                if said:
                    return said[0].removeprefix("error: ").removeprefix("ERROR: ")[:_SHOWN]
            return next((line for line in reversed(lines) if line.strip()), "it ended without a word")[:_SHOWN]
        return "it has no log"


def is_here(commit: str) -> bool:
    """Whether this clone has an experiment; those of other drivers are in theirs."""
    return bool(git(Path(), "cat-file", "-t", commit))


def leader(name: str) -> int | None:
    """The number of the process that leads the group of an experiment; `None` where it does not run."""
    for pid, words in _processes():
        with suppress(ProcessLookupError):
            if "--name" in words and name in words and os.getpgid(pid) == pid:
                return pid
    return None


def _processes() -> Iterator[tuple[int, list[str]]]:
    """The living processes of this machine, with the words of their commands."""
    if Path("/proc/self/cmdline").exists():  # small containers have no `ps`
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                yield int(process.name), (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        return
    listed = subprocess.run(["ps", "-A", "-o", "pid=,stat=,args="], capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        pid, state, *words = line.split()
        if not state.startswith("Z"):
            yield int(pid), words


def _table(aim: Objective) -> str:
    return f"metrics/{aim.stage}/plots/metrics/validation/{aim.figure}.tsv"


def read_curve(text: str, aim: Objective) -> Points:
    """The epochs of DVCLive's table, of which the last line may be half-written.

    Step 0 is the model before the phase. It is the same in every trial, so it tells none apart.
    """
    whole = text[: text.rfind("\n") + 1]
    rows = csv.DictReader(io.StringIO(whole), delimiter="\t")
    return [(int(row["step"]), float(row[aim.figure])) for row in rows if int(row["step"]) >= 1]


def best_of(points: Points, aim: Objective) -> float:
    """The best epoch's figure."""
    values = [value for _, value in points if math.isfinite(value)]
    if not values:
        raise TemperError(f"{_table(aim)}: expected epochs, found none")
    return max(values) if aim.maximize else min(values)


@contextmanager
def opened(commit: str, name: str) -> Iterator[Path]:
    """A copy of a file of an experiment, from git or DVC's cache, for as long as the block lasts.

    Raises:
        TemperError: DVC does not have it.
    """
    from dvc.api import DVCFileSystem  # noqa: PLC0415
    from dvc.exceptions import DvcException  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(name).name
        try:
            DVCFileSystem(".", rev=commit).get_file(name, str(path))
        except (DvcException, OSError) as error:
            raise TemperError(f"{name} of the experiment {commit[:7]}: {error}") from None
        yield path


def would_run(stage: str) -> list[str]:
    """The stages that DVC would run now, up to one of them.

    Where one has never run, DVC cannot say what follows it, and ends with its name.

    Raises:
        TemperError: DVC cannot say anything.
    """
    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing", stage]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    waiting = re.findall(r"^Running stage '(.+?)'", done.stdout, re.M)
    if done.returncode and not waiting:
        raise TemperError(f"dvc repro --dry {stage}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return waiting
