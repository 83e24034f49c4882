"""Reads DVC's queue from DVC's own files. This starts no process, so a page may ask every other second.

    .dvc/tmp/exps/celery/broker/in          a message for each task that is waiting
    .dvc/tmp/exps/celery/broker/processed   a message for each task that a worker has taken; never removed
    .dvc/tmp/exps/celery/result             a file for each task that has ended
    .dvc/tmp/exps/run/REV                   the process of a task, its log, its copy of the repository, its experiment
    .dvc/tmp/exps/tmp*                      the copies of the repository

This is what DVC 3.67 writes; tests/test_queue_runs.py compares it with the real DVC.
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
_TOLERANCE = 2.0  # seconds by which the times of files and of processes may differ


@dataclass(frozen=True)
class Task:
    """A task of the queue.

    Attributes:
        name: the name of the experiment, or the first digits of `rev` if it has none.
        rev: the commit with its params, by which DVC identifies it.
        baseline: the commit that it starts from.
        state: "lost" means that a crash ended its process, while DVC would show it as running forever.
        created: when it was queued, in seconds since 1970.
        message: the file with DVC's message for the worker.
        result: the file that exists once the task has ended.
        log: the file with its output.
        copy: the copy of the repository that it works in.
        ref: the reference of the resulting experiment; None: there is none yet.
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
        # `waiting` is read twice: a task may be moved between the folders at the same time, and must be found once.
        for folder in (self.waiting, self.taken, self.waiting):
            for path in sorted(folder.glob("*.celery.msg")):
                if path.name not in found and (task := self._task(path, folder == self.waiting, workers)):
                    found[path.name] = task
        return sorted(found.values(), key=lambda task: (task.created, task.name))

    def find(self, name: str) -> Task:
        """The task with this name or revision.

        Raises:
            TemperError: there is no such task, or several tasks have the name.
        """
        fitting = [task for task in self.tasks() if name in (task.name, task.rev)]
        if not fitting:
            raise TemperError(f"expected the name of a task, received {name[:60]}, which no task has")
        if len(fitting) > 1:
            revs = ", ".join(task.rev for task in fitting)
            raise TemperError(f"expected the name of one task, received {name}, which {revs} have: give one of these")
        return fitting[0]

    def workers(self) -> list[psutil.Process]:
        """The workers that are running."""
        found = [_process(path) for path in self.celery.glob("dvc-exp-worker-*.json")]
        return [process for process in found if process is not None]

    def marks(self) -> Path:
        """A folder with a file for each task that was cancelled."""
        folder = self.root / ".temper" / "queue" / "cancelled"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def process(self, rev: str) -> psutil.Process | None:
        """The process that runs a task; None if there is none any more."""
        return _process(self.process_file(rev))

    def process_file(self, rev: str) -> Path:
        """The file in which DVC records the process of a task, once it has started one."""
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
        """The id of a message and DVC's description of its task; None if it is not the run of an experiment."""
        if path.name not in self._read:
            content = _json(path)
            if not content:
                return None  # it is just being written, or was just taken
            headers = content.get("headers", {})
            is_run = headers.get("task") == _TASK
            entry = json.loads(base64.b64decode(content["body"]))[0][0] if is_run else {}
            self._read[path.name] = (headers["id"], entry) if is_run else None
        return self._read[path.name]


def may_hold(processes: list[psutil.Process], since: float, exps: Path) -> bool:
    """Whether one of these processes may be working on something that was taken or made at a given time.

    This is possible for a process that started before that time and is not running a task. (Workers run one task at a
    time.)

    Args:
        since: the time, in seconds since 1970.
        exps: DVC's folder of experiments.
    """
    return any(_started(one) <= since + _TOLERANCE and not _is_busy(one, exps) for one in processes)


def _is_busy(process: psutil.Process, exps: Path) -> bool:
    """Whether a process is running a task: one of its children has a path in DVC's folder of experiments."""
    with suppress(psutil.Error):
        return any(str(exps) in " ".join(child.cmdline()) for child in process.children())
    return False


def _started(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        return float(process.create_time())
    return time.time()


def _process(path: Path) -> psutil.Process | None:
    """The process that DVC recorded in a file; None if it has ended, even if its pid has been reused since."""
    info = _json(path)
    if not info or info.get("returncode") is not None:
        return None
    with suppress(psutil.Error, FileNotFoundError, ValueError):
        process = psutil.Process(int(info["pid"]))
        is_it = process.create_time() <= path.stat().st_mtime + _TOLERANCE
        return process if is_it and process.status() != psutil.STATUS_ZOMBIE else None
    return None


def _created(path: Path) -> float:
    """When a message was written. Moving the file, when a task is taken or put back, does not change this time."""
    return path.stat().st_mtime


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a log; none if it does not exist yet."""
    with suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as log:
        yield from log
