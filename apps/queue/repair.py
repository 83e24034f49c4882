"""Repairs DVC's queue after a crash, without touching anything that a living process uses.

- A task that no process works on any more, which DVC would show as running forever, is queued again. It keeps its
  params and name, because its message is moved back to where workers look for tasks. Finished stages come from the run
  cache, and an interrupted training continues where it stopped.
- Copies of the repository in which no process works are removed.
- git's HEAD and params.yaml are restored if a process was killed while it queued a run, and nobody has used them since.
- Workers are started if tasks are waiting.

Whatever may belong to a living process is left alone and reported.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from apps.queue.repository import Repository, processes_in
from apps.queue.tasks import Queue, Task, may_hold
from apps.queue.workers import end_cancelled, put_back


@dataclass
class Repaired:
    """What a repair did.

    Attributes:
        restored: what was done about git's HEAD and params.yaml, in words; empty if nothing was.
        ended: tasks that were cancelled and then lost; DVC shows them as failed now.
        again: lost tasks that were queued again.
        left: tasks whose worker has ended while the process that it started is still running.
        copies: the copies of the repository that were removed.
    """

    restored: str = ""
    ended: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The result in words, one line for each finding."""
        found = [f"{name}: was cancelled: it has ended now" for name in self.ended]
        found += [f"{name}: no process worked on it any more: it waits again" for name in self.again]
        found += [
            f"{name}: its worker is gone, its process still computes: repair again when it has ended"
            for name in self.left
        ]
        found += [f"removed {copy}, in which no process works" for copy in self.copies]
        if self.restored:
            found.append(self.restored)
        return found or ["nothing to repair"]


def repair(repository: Repository, queue: Queue) -> Repaired:
    """Repairs the queue, without starting workers.

    Raises:
        TemperError: git fails.
    """
    with repository.locked():
        found = Repaired(restored=repository.restore(), ended=end_cancelled(repository, queue))
        workers = {worker.pid for worker in queue.workers()}
        for task in queue.tasks():
            if task.state == "lost":
                put_back(queue, task)
                found.again.append(task.name)
            elif task.state == "running" and _is_orphaned(queue, task, workers):
                found.left.append(task.name)
        for copy in abandoned_copies(queue):
            shutil.rmtree(copy, ignore_errors=True)
            found.copies.append(str(copy.relative_to(repository.root)))
    return found


def _is_orphaned(queue: Queue, task: Task, workers: set[int]) -> bool:
    process = queue.process(task.rev)
    return process is not None and process.ppid() not in workers


def abandoned_copies(queue: Queue) -> list[Path]:
    """The copies of the repository in which no process works and that no process is about to use."""
    copies = [path for path in queue.exps.glob("tmp*") if path.is_dir()]
    if not copies:
        return []
    used = {task.copy for task in queue.tasks() if task.state == "running"}
    processes = list(processes_in(queue.root))
    places = [place for _, place in processes]
    owners = [process for process, _ in processes if _is_dvc(process)]
    return [
        copy
        for copy in copies
        if copy not in used
        and not any(place.is_relative_to(copy) for place in places)
        and not may_hold(owners, _made(copy), queue.exps)
    ]


def _is_dvc(process: psutil.Process) -> bool:
    """Whether a process is, or may be, a `dvc` command, which may be about to make a copy.

    The command line of a process that has just started is empty for a moment. Such a process counts as `dvc`.
    """
    try:
        words = process.cmdline()[:4]
    except psutil.Error:
        return False
    return not words or any(Path(word).name in ("dvc", "dvc.exe") for word in words)


def _made(copy: Path) -> float:
    """When a copy was made, estimated by the oldest of its files, in seconds since 1970."""
    times = [path.lstat().st_mtime for path in (copy, *copy.glob(".git/*"))]
    return min(times)
