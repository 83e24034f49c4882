"""Work spread over threads, results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from temper.base.machine import cores

LEAST_BYTES = 2**30  # in flight
BYTES_PER_THREAD = 2**27  # in flight: photos of 40 megapixels keep every thread busy, larger ones some

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
    """`map(function, items)` on threads, in order, reading at most `ahead` items per thread beyond the last result.

    For functions that release the GIL, as OpenCV's do. Unlike `Executor.map`, it never reads the whole
    of `items`: memory stays bounded by what is in flight.

    Args:
        threads: how many; `None` is one per core.
        weigh: the bytes of memory that an item takes until its result is handed on.
        most_bytes: that the items in flight take together, unless one alone takes more; `None`: `BYTES_PER_THREAD` for
            each thread, and at least `LEAST_BYTES`.
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
