"""Puts accepted runs into DVC's queue: one process queues all that wait, and each run is queued exactly once."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from apps.queue.postings import Run, Wish, checked
from apps.queue.records import Record, Records
from apps.queue.repository import Repository
from apps.queue.tasks import Queue
from apps.serve.limits import Refusal
from temper.base.errors import TemperError

MOST_WAITING = 2000  # tasks in the queue
_AT_ONCE = 4  # how many requests are validated at the same time


@dataclass
class Item:
    """A request that is waiting to be queued.

    Attributes:
        wish: the request.
        runs: its runs.
        base: the text of the params.yaml with which its runs were validated.
        begun: its record, if it was accepted before a crash; some of its runs may be in the queue already.
        ended: completed when the request has been queued or refused.
    """

    wish: Wish
    runs: list[Run]
    base: str
    begun: Record | None = None
    ended: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Queueing:
    """Accepts requests and makes sure that each of them is queued exactly once."""

    def __init__(self, repository: Repository, queue: Queue) -> None:
        self.repository, self.queue = repository, queue
        self.records = Records(repository.folder / "requests")
        self._waiting: asyncio.Queue[Item] = asyncio.Queue()
        self._flying: dict[str, tuple[str, asyncio.Task[list[str]]]] = {}
        self._checking = asyncio.Semaphore(_AT_ONCE)

    async def accept(self, wish: Wish) -> list[str]:
        """Validates and queues a request; returns the names of its runs. A repeated id gets the same answer again.

        Raises:
            Refusal: the request is invalid, or its id or name is taken; nothing of it is queued then.
        """
        record = self.records.get(wish.id)
        if record is not None and record.queued:
            _refuse_other(wish, record.digest)
            return [run.name for run in record.runs]
        if wish.id not in self._flying:
            task = asyncio.create_task(self._fly(wish))
            self._flying[wish.id] = wish.digest, task
            task.add_done_callback(lambda _: self._flying.pop(wish.id))
        digest, task = self._flying[wish.id]
        _refuse_other(wish, digest)
        return await asyncio.shield(task)  # goes on even if the client disconnects

    async def _fly(self, wish: Wish) -> list[str]:
        async with self._checking:
            base = await asyncio.to_thread(self.repository.base)
            record = self.records.get(wish.id)
            runs = list(record.runs) if record else await asyncio.to_thread(checked, wish, base)
        item = Item(wish, runs, base, begun=record)
        self._waiting.put_nowait(item)
        await item.ended
        return [run.name for run in item.runs]

    async def work(self) -> None:
        """Queues accepted requests, forever."""
        while True:
            items = [await self._waiting.get()]
            while not self._waiting.empty():
                items.append(self._waiting.get_nowait())
            for item, error in zip(items, await asyncio.to_thread(self._batch, items), strict=True):
                if error is None:
                    item.ended.set_result(None)
                else:
                    item.ended.set_exception(error)

    def _batch(self, items: Sequence[Item]) -> list[Exception | None]:
        """Queues requests; returns for each None, or the error that prevented it."""
        try:
            with self.repository.locked() as lock:
                self._restore()
                uncommitted = self.repository.uncommitted()
                if uncommitted:
                    raise Refusal(409, uncommitted)
                return self._queue(items, lock)
        except Exception as error:
            return [_answerable(error)] * len(items)

    def _queue(self, items: Sequence[Item], lock: int) -> list[Exception | None]:
        """Queues all requests by one process; if that fails, each by its own, so that one cannot make others fail."""
        base, head, names = self.repository.base(), self.repository.head(), self.names()
        there = set(names)
        errors = [self._refusal(item, base, head, names) for item in items]
        good = [item for item, error in zip(items, errors, strict=True) if error is None]
        for item in good:
            self.records.write(item.wish, tuple(item.runs), head, False)
        missing = [run for item in good for run in item.runs if run.name not in there]
        try:
            if missing:
                self.repository.enqueue(missing, lock)
        except TemperError:
            there = self.names()
            return [error or self._rest(item, there, head, lock) for item, error in zip(items, errors, strict=True)]
        for item in good:
            self.records.write(item.wish, tuple(item.runs), head, True)
        return errors

    def _rest(self, item: Item, queued: set[str], head: str, lock: int) -> Exception | None:
        """Queues the missing runs of a request; if DVC refuses one, removes the request's runs from the queue."""
        try:
            missing = [run for run in item.runs if run.name not in queued]
            if missing:
                self.repository.enqueue(missing, lock)
        except TemperError as error:
            for run in {run.name for run in item.runs} & self.names():
                self.repository.dvc("queue", "remove", run)
            self.records.forget(item.wish.id)
            return Refusal(500, f"DVC did not take the run into its queue: {error}")
        self.records.write(item.wish, tuple(item.runs), head, True)
        return None

    def _refusal(self, item: Item, base: str, head: str, names: set[str]) -> Exception | None:
        """Why a request cannot be queued now; None if it can, in which case its names are added to `names`."""
        if item.begun is not None:
            wrong = _elsewhere(item.begun, head, names)
            return Refusal(409, wrong) if wrong else None
        taken = [run.name for run in item.runs if run.name in names]
        if taken:
            return Refusal(409, f"name: expected one that no task or experiment has, received {taken[0]}")
        if len(names) + len(item.runs) > MOST_WAITING < self.waiting() + len(item.runs):
            return Refusal(503, f"the queue holds {MOST_WAITING} tasks: try again later", again=60)
        if base != item.base:  # params.yaml was committed anew since the request was validated
            try:
                item.runs = checked(item.wish, base)
            except Refusal as refusal:
                return refusal
        names.update(run.name for run in item.runs)
        return None

    def names(self) -> set[str]:
        """The names of all tasks and experiments."""
        experiments = {ref.rsplit("/", 1)[1] for ref in self.repository.experiments()}
        return experiments | {task.name for task in self.queue.tasks()}

    def waiting(self) -> int:
        """How many tasks are waiting in the queue."""
        return sum(task.state == "queued" for task in self.queue.tasks())

    def finish_interrupted(self) -> list[str]:
        """Queues runs that were accepted but not yet queued when the server was killed; returns lines for the log.

        Raises:
            TemperError: there are uncommitted changes, so nothing may be queued.
        """
        records = list(self.records.unfinished())
        if not records:
            return []
        with self.repository.locked() as lock:
            self._restore()
            uncommitted = self.repository.uncommitted()
            if uncommitted:
                raise TemperError(
                    f"runs accepted before the server stopped are waiting: {uncommitted}, then start it again"
                )
            names, head = self.names(), self.repository.head()
            return [line for record in records for line in self._finish(record, head, names, lock)]

    def _finish(self, record: Record, head: str, names: set[str], lock: int) -> list[str]:
        wrong = _elsewhere(record, head, names)
        if wrong:
            return [wrong]
        missing = [run for run in record.runs if run.name not in names]
        if missing:
            self.repository.enqueue(missing, lock)
        self.records.finish(record)
        return [f"{run.name}: accepted before the server ended, queued now" for run in missing]

    def _restore(self) -> None:
        """Restores git's HEAD and params.yaml after a killed process, and prints what was done."""
        restored = self.repository.restore()
        if restored:
            print(restored, file=sys.stderr, flush=True)


def _elsewhere(record: Record, head: str, names: set[str]) -> str:
    """Why the missing runs of a request that a crash interrupted cannot be queued; empty if they can."""
    if record.commit == head or all(run.name in names for run in record.runs):
        return ""
    return (
        f"{record.id}: expected the commit {record.commit[:7]} to be checked out, at which it was accepted before the "
        f"server ended, received {head[:7]}: check that out and start the server again, or send it under another id"
    )


def _refuse_other(wish: Wish, digest: str) -> None:
    if digest != wish.digest:
        raise Refusal(409, f"id: expected a new one for another request, received {wish.id}")


def _answerable(error: Exception) -> Exception:
    return error if isinstance(error, Refusal) else Refusal(500, f"the queue cannot be written: {error}")
