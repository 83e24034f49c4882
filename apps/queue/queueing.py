"""Accepted runs on their way into the queue: all that wait are queued by one process, and what is queued runs once."""

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

MOST_WAITING = 2000  # tasks
_AT_ONCE = 4  # requests whose values are checked at the same time


@dataclass
class Item:
    """A request on its way.

    Attributes:
        base: the params.yaml that its runs were checked against.
        begun: what a crash left of it; some of its runs may be in the queue already.
    """

    wish: Wish
    runs: list[Run]
    base: str
    begun: Record | None = None
    ended: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Queueing:
    """Takes requests, and keeps that each runs exactly once."""

    def __init__(self, repository: Repository, queue: Queue) -> None:
        self.repository, self.queue = repository, queue
        self.records = Records(repository.folder / "requests")
        self._waiting: asyncio.Queue[Item] = asyncio.Queue()
        self._flying: dict[str, tuple[str, asyncio.Task[list[str]]]] = {}
        self._checking = asyncio.Semaphore(_AT_ONCE)

    async def accept(self, wish: Wish) -> list[str]:
        """Checks and queues a request; returns the names of its runs. The same id again: the same answer.

        Raises:
            Refusal: it is wrong, or the id or the name is another's; then nothing of it is queued.
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
        return await asyncio.shield(task)  # a client that goes away takes back nothing

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
        """Queues what comes, for ever."""
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
        """Queues requests; what becomes of each."""
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
        """Queues requests by one process; if that fails, each by its own, so that no other pays for one."""
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
        """Queues what is missing of a request; if DVC refuses, takes back what was queued of it."""
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
        """Why a request cannot be queued now; its names are taken otherwise."""
        if item.begun is not None:
            wrong = _elsewhere(item.begun, head, names)
            return Refusal(409, wrong) if wrong else None
        taken = [run.name for run in item.runs if run.name in names]
        if taken:
            return Refusal(409, f"name: expected one that no task or experiment has, received {taken[0]}")
        if len(names) + len(item.runs) > MOST_WAITING < self.waiting() + len(item.runs):
            return Refusal(503, f"the queue holds {MOST_WAITING} tasks: try again later", again=60)
        if base != item.base:  # somebody has committed since it was checked
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
        """How many tasks wait."""
        return sum(task.state == "queued" for task in self.queue.tasks())

    def finish_interrupted(self) -> list[str]:
        """Queues what was accepted and not queued when the server was killed; returns lines that say what became of it.

        Raises:
            TemperError: changes are not committed, so nothing may be queued.
        """
        records = list(self.records.unfinished())
        if not records:
            return []
        with self.repository.locked() as lock:
            self._restore()
            uncommitted = self.repository.uncommitted()
            if uncommitted:
                raise TemperError(f"what was accepted before the server ended waits: {uncommitted}, and start it again")
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
        """Puts back what a killed process left, and says so."""
        restored = self.repository.restore()
        if restored:
            print(restored, file=sys.stderr, flush=True)


def _elsewhere(record: Record, head: str, names: set[str]) -> str:
    """Why what is missing of a request that a crash interrupted cannot be queued; empty if it can."""
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
