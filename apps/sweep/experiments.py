"""A trial as a DVC experiment: starts it, finds it again, follows its curve, ends it, and reads its result.

`dvc exp run --temp` runs it in a copy of the repository.
"""

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

Points = list[tuple[int, float]]  # (epoch, value of the objective); the first epoch is 1
_PATIENCE = 60  # seconds that DVC has to remove its copy after an interrupt, before it is killed
_RUNS = Path(".dvc/tmp/exps/run")  # DVC's notes on the copies of the repository that it works in
_SHOWN = 300  # characters of an error message


@dataclass
class Experiment:
    """One `dvc exp run --temp`, identified by its name.

    A driver that is killed leaves its experiments running; the next driver finds them by their names.

    Attributes:
        overrides: values for the options `-S`.
        stage: the last stage to run.
        log: the file for all output of `dvc`.
    """

    name: str
    overrides: list[str]
    stage: str
    log: Path
    _process: "subprocess.Popen[bytes] | None" = None
    _group: int | None = None
    _interrupted: float | None = None  # when it was first interrupted, by time.monotonic
    _forgotten: list[Path] = field(default_factory=list)

    def begin(self) -> None:
        """Starts the experiment, unless it runs or has finished already."""
        if self.commit():
            return
        self._group = leader(self.name)
        if self._group is None:
            self._start()
            self._group = self._process.pid if self._process else None

    def _start(self) -> None:
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "exp", "run", "--temp", "--name", self.name]
        command += [word for override in self.overrides for word in ("-S", override)]
        own = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # stages run this `python`
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, self.stage],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PATH": own},
                start_new_session=True,  # a process group: signals reach `dvc` and its stage, nothing else
            )

    def is_running(self) -> bool:
        """Whether its `dvc` process runs."""
        if self._process is not None:
            return self._process.poll() is None
        if self._group is not None and leader(self.name) is None:
            self._group = None
        return self._group is not None

    def commit(self) -> str:
        """The commit in which DVC keeps the experiment; empty if it has not finished."""
        return git(Path(), "for-each-ref", "--format=%(objectname)", f"refs/exps/**/{self.name}")

    def interrupt(self) -> None:
        """Does what Ctrl-C would: the stage exits with 130, and DVC removes its copy and keeps no result.

        Called again more than 60 seconds later, kills the processes that have not ended.
        """
        first = self._interrupted is None
        self._interrupted = self._interrupted or time.monotonic()
        if self._group is not None and (first or time.monotonic() - self._interrupted > _PATIENCE):
            with suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGINT if first else signal.SIGKILL)

    def end(self) -> None:
        """Interrupts the experiment, and waits until it has ended."""
        while self.is_running():
            self.interrupt()
            time.sleep(0.1)

    def prune(self) -> None:
        """Interrupts the experiment for good. It will not be resumed, so `forget` removes what its phase has saved."""
        if self._interrupted is None:
            self._forgotten = self._unfinished()
        self.interrupt()

    def forget(self) -> None:
        """Removes the saved state of a pruned phase; called when the experiment has ended."""
        for state in self._forgotten:
            shutil.rmtree(state, ignore_errors=True)

    def _unfinished(self) -> list[Path]:
        """The folders with saved states of phases whose locks are held by processes of this experiment."""
        found = []
        for lock in scratch("unfinished").glob("*.lock"):
            with suppress(OSError, ValueError):
                if os.getpgid(int(lock.read_text(encoding="utf-8"))) == self._group:
                    found.append(lock.with_suffix(""))
        return found

    def has_run(self) -> list[str]:
        """The stages that it has started so far, without those whose outputs came from DVC's cache."""
        with suppress(OSError):
            return re.findall(r"^Running stage '(.+?)'", self.log.read_text(encoding="utf-8", errors="replace"), re.M)
        return []

    def points(self, aim: Objective) -> Points:
        """The curve of the objective so far; empty until the stage that writes it runs.

        Before that, DVC's copy of the repository has the curve of the commit that the experiment started from.
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
        """The objective of a finished experiment, and its curve; without a curve, an empty list.

        Raises:
            TemperError: the experiment's files do not have the objective, or not as a finite number.
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
        """If the objective is the loss or accuracy of the warm-up, the other of the two, by its name; else empty."""
        if aim.is_curve or aim.stage != "warm_up":
            return {}
        name = "loss" if aim.name.endswith("accuracy") else "accuracy"
        kept = json.loads(git(Path(), "show", f"{self.commit()}:metrics/warm_up/metrics.json") or "{}")
        value = kept.get(f"warm_up_best_val_{name}")
        return {f"warm_up/validation/{name}": float(value)} if isinstance(value, int | float) else {}

    def reason(self) -> str:
        """Why the experiment has no result, from its log: the stage's error line, or else DVC's, or the last line."""
        with suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            for start in ("error: ", "MemoryError", "ERROR: "):
                said = [line for line in lines if line.startswith(start)]
                if said:
                    return said[0].removeprefix("error: ").removeprefix("ERROR: ")[:_SHOWN]
            return next((line for line in reversed(lines) if line.strip()), "it ended without a word")[:_SHOWN]
        return "it has no log"


def is_here(commit: str) -> bool:
    """Whether this clone has the commit of an experiment; other drivers' experiments are in their clones."""
    return bool(git(Path(), "cat-file", "-t", commit))


def leader(name: str) -> int | None:
    """The process id of a running experiment's `dvc`, which leads its process group; `None` if it does not run."""
    for pid, words in _processes():
        with suppress(ProcessLookupError):
            if "--name" in words and name in words and os.getpgid(pid) == pid:
                return pid
    return None


def _processes() -> Iterator[tuple[int, list[str]]]:
    """The id and the command line, as a list of words, of each running process on this machine."""
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
    """The epochs in a table that DVCLive writes. A last line that is only half-written is ignored.

    Step 0 is left out: it is the model before the phase, so it says nothing about a trial's params.
    """
    whole = text[: text.rfind("\n") + 1]
    rows = csv.DictReader(io.StringIO(whole), delimiter="\t")
    return [(int(row["step"]), float(row[aim.figure])) for row in rows if int(row["step"]) >= 1]


def best_of(points: Points, aim: Objective) -> float:
    """The value of the best epoch.

    Raises:
        TemperError: there are no epochs with a finite value.
    """
    values = [value for _, value in points if math.isfinite(value)]
    if not values:
        raise TemperError(f"{_table(aim)}: expected epochs, found none")
    return max(values) if aim.maximize else min(values)


@contextmanager
def opened(commit: str, name: str) -> Iterator[Path]:
    """A temporary copy of an experiment's file, from git or DVC's cache, until the block ends.

    Raises:
        TemperError: DVC cannot find the file.
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
    """The stages up to `stage` that are out of date, so that DVC would run them now.

    If one of them has never run, DVC cannot tell what would run after it, so the list ends with it.

    Raises:
        TemperError: DVC failed before it named any stage.
    """
    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing", stage]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    waiting = re.findall(r"^Running stage '(.+?)'", done.stdout, re.M)
    if done.returncode and not waiting:
        raise TemperError(f"dvc repro --dry {stage}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return waiting
