"""DVC's workers: starts them while tasks are waiting, cancels tasks, and puts lost tasks back into the queue."""

import asyncio
import sys
import time
from contextlib import suppress

from apps.queue.repository import Repository
from apps.queue.tasks import Queue, State, Task
from apps.serve.limits import Refusal
from temper.base.errors import TemperError

_PAUSE = 2.0  # seconds between two checks of the queue
_SETTLING = 10.0  # seconds that new workers get to start, before more are started


async def keep_working(repository: Repository, queue: Queue, jobs: int) -> None:
    """Keeps `jobs` workers running while tasks are waiting; never returns.

    Workers end by themselves when the queue is empty, and `dvc queue kill` ends the worker of a task together with the
    task. A task that such a worker had just taken is queued again.
    """
    while True:
        try:
            await asyncio.to_thread(end_cancelled, repository, queue)
            await asyncio.to_thread(put_back_unbegun, repository, queue)
            if await asyncio.to_thread(start_workers, repository, queue, jobs):
                await asyncio.sleep(_SETTLING)
        except (TemperError, OSError) as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            await asyncio.sleep(_SETTLING)
        await asyncio.sleep(_PAUSE)


def start_workers(repository: Repository, queue: Queue, jobs: int) -> bool:
    """Starts workers if tasks are waiting and fewer than `jobs` are running; returns whether it did."""
    if len(queue.workers()) >= jobs or not any(task.state == "queued" for task in queue.tasks()):
        return False
    repository.dvc("queue", "start", "-j", str(jobs))
    return True


def end_cancelled(repository: Repository, queue: Queue) -> list[str]:
    """Makes DVC record the end of tasks that were cancelled and then lost; returns their names.

    `dvc queue kill` also interrupts the worker of the task, which may then end without recording the result.
    """
    ended = [task for task in queue.tasks() if task.state == "lost" and (queue.marks() / task.rev).exists()]
    for task in ended:
        repository.dvc("queue", "kill", task.rev)
    return [task.name for task in ended]


def put_back_unbegun(repository: Repository, queue: Queue) -> list[str]:
    """Queues tasks again that a worker took but lost before they began; returns their names.

    A task that had begun is left to `repair`: it may have crashed its worker itself, and would do so again.
    """
    if not any(_is_unbegun(queue, task) for task in queue.tasks()):
        return []
    with repository.locked():
        lost = [task for task in queue.tasks() if _is_unbegun(queue, task)]
        for task in lost:
            put_back(queue, task)
    return [task.name for task in lost]


def put_back(queue: Queue, task: Task) -> None:
    """Queues a lost task again. The last step is a single rename; if it is not reached, the task is still lost."""
    queue.process_file(task.rev).unlink(missing_ok=True)  # the process has ended
    task.message.rename(queue.waiting / task.message.name)


def _is_unbegun(queue: Queue, task: Task) -> bool:
    return task.state == "lost" and not queue.process_file(task.rev).exists()


def cancel(repository: Repository, queue: Queue, rev: str, force: bool) -> State:
    """Removes a task from the queue, or ends it if it is running; returns the state that it was in.

    Args:
        force: whether to kill a task that does not end when it is asked to.

    Raises:
        Refusal: it has ended already, or could not be ended.
    """
    for _ in range(3):  # a worker may take the task between the check and the command
        task = queue.find(rev)
        if task.state == "queued":
            with suppress(TemperError), repository.locked():
                repository.dvc("queue", "remove", rev)
                return "queued"
        elif task.state in ("running", "lost"):
            (queue.marks() / rev).touch()
            with suppress(TemperError):
                repository.dvc("queue", "kill", *(["--force"] if force else []), rev)
                return task.state
            (queue.marks() / rev).unlink(missing_ok=True)
        else:
            raise Refusal(409, f"expected a task that waits or runs, received {task.name}, which is {task.state}")
        time.sleep(0.5)
    raise Refusal(503, f"{task.name} could not be taken from its worker now: try again", again=2)
