"""DVC's queue, as its own files tell it: no process is started, so that a page may ask every other second.

    .dvc/tmp/exps/celery/broker/in          a message for each task that waits
    .dvc/tmp/exps/celery/broker/processed   and for each that a worker has taken, for ever
    .dvc/tmp/exps/celery/result             a file for each task that has ended
    .dvc/tmp/exps/run/REV                   the process of a task, its log, its copy of the repository, its experiment
    .dvc/tmp/exps/tmp*                      the copies

as DVC 3.67 writes them; tests/test_queue_runs.py holds this against the real one.
"""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from temper.base.errors import TemperError

State = Literal["queued", "running", "lost", "done", "failed", "cancelled"]
_TASK = "dvc.repo.experiments.queue.tasks.run_exp"
_TOLERANCE = 2.0  # seconds by which the clocks of files and processes may differ


@dataclass(frozen=True)
class Task:
    """A task of the queue.

    Attributes:
        rev: the commit that holds its params, by which DVC knows it.
        state: "lost" is what a crash left: no process works on it any more, but DVC shows it as running for ever.
        created: seconds since 1970.
        copy: the copy of the repository that it works in.
        ref: of the experiment that it became.
    """

    name: str
    rev: str
    baseline: str
    state: State
    created: float
    message: Path
    result: Path
    log: Path
    copy: Path | None = None
    ref: str | None = None


class Queue:
    """The queue of one repository."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.exps = root / ".dvc" / "tmp" / "exps"
        self.celery = self.exps / "celery"
        self.waiting, self.taken = self.celery / "broker" / "in", self.celery / "broker" / "processed"
        self._read: dict[str, tuple[str, dict[str, Any]] | None] = {}

    def tasks(self) -> list[Task]:
        """All tasks, in the order in which they were queued."""
        workers = self.workers()
        found: dict[str, Task] = {}
        for folder in (self.waiting, self.taken, self.waiting):  # one that a worker takes meanwhile is seen once
            for path in sorted(folder.glob("*.celery.msg")):
                if path.name not in found and (task := self._task(path, folder == self.waiting, workers)):
                    found[path.name] = task
        return sorted(found.values(), key=lambda task: (task.created, task.name))

    def find(self, name: str) -> Task:
        """The task of a name, or of a revision.

        Raises:
            TemperError: there is none, or there are several.
        """
        fitting = [task for task in self.tasks() if name in (task.name, task.rev)]
        if not fitting:
            raise TemperError(f"expected the name of a task, received {name[:60]}, which no task has")
        if len(fitting) > 1:
            revs = ", ".join(task.rev for task in fitting)
            raise TemperError(f"expected the name of one task, received {name}, which {revs} have: give one of these")
        return fitting[0]

    def workers(self) -> list[psutil.Process]:
        """The workers that live."""
        found = [_process(path) for path in self.celery.glob("dvc-exp-worker-*.json")]
        return [process for process in found if process is not None]

    def marks(self) -> Path:
        """A folder with a file for each task that was cancelled."""
        folder = self.root / ".temper" / "queue" / "cancelled"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def process(self, rev: str) -> psutil.Process | None:
        """The process that runs a task, if it lives."""
        return _process(self.process_file(rev))

    def process_file(self, rev: str) -> Path:
        """What DVC writes of the process of a task, once it has started one."""
        return self.exps / "run" / rev / f"{rev}.json"

    def _task(self, path: Path, waits: bool, workers: list[psutil.Process]) -> Task | None:
        message = self._message(path)
        if message is None:
            return None
        identity, entry = message
        rev = entry["stash_rev"]
        run = self.exps / "run" / rev
        result = self.celery / "result" / f"celery-task-meta-{identity}"
        info = {} if waits else _json(run / f"{rev}.run")
        copy = Path(info["root_dir"]) if info.get("root_dir") else None
        try:
            state = "queued" if waits else self._state(rev, path, result, info, workers)
            created = _created(path)
        except FileNotFoundError:  # it went from one folder to the other
            return None
        name = entry.get("name") or rev[:7]
        log, ref = run / f"{rev}.out", info.get("result_ref")
        return Task(name, rev, entry["baseline_rev"], state, created, path, result, log, copy, ref)

    def _state(self, rev: str, path: Path, result: Path, info: dict[str, Any], workers: list[psutil.Process]) -> State:
        if result.exists():
            if info.get("result_ref"):
                return "done"
            return "cancelled" if (self.marks() / rev).exists() else "failed"
        if self.process(rev) is not None or may_hold(workers, path.stat().st_ctime, self.exps):
            return "running"
        return "running" if result.exists() else "lost"  # it may have ended since it was looked at

    def _message(self, path: Path) -> tuple[str, dict[str, Any]] | None:
        """The task's number and DVC's description of it; None if it is no run of an experiment."""
        if path.name not in self._read:
            content = _json(path)
            if not content:
                return None  # just being written, or taken
            headers = content.get("headers", {})
            is_run = headers.get("task") == _TASK
            entry = json.loads(base64.b64decode(content["body"]))[0][0] if is_run else {}
            self._read[path.name] = (headers["id"], entry) if is_run else None
        return self._read[path.name]


def may_hold(processes: list[psutil.Process], since: float, exps: Path) -> bool:
    """Whether one of these processes may hold what was taken or made at a time.

    It started before, and it has no other task at hand: workers have one at a time.
    """
    return any(_started(one) <= since + _TOLERANCE and not _is_busy(one, exps) for one in processes)


def _is_busy(process: psutil.Process, exps: Path) -> bool:
    """Whether it runs a task, of which the copy and the process are known."""
    with suppress(psutil.Error):
        return any(str(exps) in " ".join(child.cmdline()) for child in process.children())
    return False


def _started(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        return float(process.create_time())
    return time.time()


def _process(path: Path) -> psutil.Process | None:
    """The process that DVC wrote down, if it lives: another one may have got its number since."""
    info = _json(path)
    if not info or info.get("returncode") is not None:
        return None
    with suppress(psutil.Error, FileNotFoundError, ValueError):
        process = psutil.Process(int(info["pid"]))
        is_it = process.create_time() <= path.stat().st_mtime + _TOLERANCE
        return process if is_it and process.status() != psutil.STATUS_ZOMBIE else None
    return None


def _created(path: Path) -> float:
    """When a message was written; being taken and put back changes a file's place, not its content."""
    return path.stat().st_mtime


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a log that may not be there yet."""
    with suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as log:
        yield from log
