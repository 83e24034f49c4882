"""Runs a function over items on several threads, and yields the results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from temper.base.machine import cores

LEAST_BYTES = 2**30  # the limit of the bytes in flight is at least this
BYTES_PER_THREAD = 2**27  # in flight: enough to keep all threads busy with photos of up to 40 megapixels

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int | None = None,
    ahead: int = 4,
    weigh: Callable[[Item], int] | None = None,
    most_bytes: int | None = None,
) -> Iterator[Result]:
    """`map(function, items)` on threads, with the results in order.

    For functions that release the GIL, as OpenCV's do. Unlike `Executor.map`, it does not read all `items` at once, but
    at most `ahead` per thread beyond the last result: memory stays bounded by the items in flight.

    Args:
        threads: the number of threads; `None`: one per core.
        ahead: the most items per thread that wait or run at a time.
        weigh: returns the bytes of memory that an item takes until its result is yielded; `None`: 0 for each.
        most_bytes: the most that the items in flight may take together, unless a single one takes more; `None`:
            `BYTES_PER_THREAD` for each thread, and at least `LEAST_BYTES`.
    """
    threads = threads or cores()
    most_bytes = most_bytes or max(LEAST_BYTES, threads * BYTES_PER_THREAD)
    waiting: deque[tuple[Future[Result], int]] = deque()
    in_flight = 0  # bytes
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                weight = weigh(item) if weigh else 0
                while waiting and (len(waiting) > threads * ahead or in_flight + weight > most_bytes):
                    done, bytes_of_done = waiting.popleft()
                    yield done.result()
                    in_flight -= bytes_of_done
                waiting.append((pool.submit(function, item), weight))
                in_flight += weight
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            for future, _ in waiting:
                future.cancel()
