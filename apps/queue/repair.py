"""What a crash leaves in DVC's queue, put right; only what is dead is touched.

- A task that no process works on any more, which DVC shows as running for ever, waits again. It is the same task, with
  the same params and name: its message goes back to where workers look. Finished stages come from the run cache, and an
  interrupted training goes on where it was.
- A copy of the repository that no process works in is removed.
- git's HEAD and params.yaml are put back, if a process was killed while it queued and nobody went on there since.
- Workers are started, if tasks wait.

Whatever may belong to a living process is left alone and named.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from apps.queue.repository import Repository
from apps.queue.tasks import Queue, Task, may_hold
from apps.queue.workers import end_cancelled, put_back


@dataclass
class Repaired:
    """What was found.

    Attributes:
        restored: what became of git's HEAD and params.yaml, if a process was killed while it queued.
        ended: tasks that were cancelled and then lost: DVC shows them as failed now.
        again: tasks that wait again.
        left: tasks whose worker is gone, but not yet the process that it started.
        copies: those that were removed.
    """

    restored: str = ""
    ended: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people."""
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
    """Puts right what a crash left; workers are another step.

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
    """The copies of the repository in which nothing works and which nothing is about to use."""
    copies = [path for path in queue.exps.glob("tmp*") if path.is_dir()]
    if not copies:
        return []
    used = {task.copy for task in queue.tasks() if task.state == "running"}
    processes = list(_processes_in(queue.root))
    places = [place for _, place in processes]
    owners = [process for process, _ in processes if _is_dvc(process)]
    return [
        copy
        for copy in copies
        if copy not in used
        and not any(place.is_relative_to(copy) for place in places)
        and not may_hold(owners, _made(copy), queue.exps)
    ]


def _processes_in(root: Path) -> list[tuple[psutil.Process, Path]]:
    """The processes that work in the repository or in one of its copies, and where."""
    found = []
    for process in psutil.process_iter():
        try:
            place = Path(process.cwd())
        except (psutil.Error, OSError):  # another user's, or it has ended
            continue
        if place.is_relative_to(root):
            found.append((process, place))
    return found


def _is_dvc(process: psutil.Process) -> bool:
    """Whether it may be about to make a copy."""
    try:
        words = process.cmdline()[:4]
    except psutil.Error:
        return False
    return any(Path(word).name in ("dvc", "dvc.exe") for word in words)


def _made(copy: Path) -> float:
    """When a copy was made, by the oldest of its files."""
    times = [path.lstat().st_mtime for path in (copy, *copy.glob(".git/*"))]
    return min(times)
