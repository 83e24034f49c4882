"""Work spread over threads keeps its order, its bounds and its errors."""

from typing import Any

import pytest

from temper.parallel import ordered_map


def test_ordered_map_keeps_order_and_reads_little_ahead() -> None:
    read = 0

    def numbers() -> Any:
        nonlocal read
        for number in range(1000):
            read += 1
            yield number

    results = ordered_map(lambda number: number * number, numbers(), threads=4, ahead=2)
    assert next(results) == 0
    assert read <= 10
    assert list(results) == [number * number for number in range(1, 1000)]


def test_ordered_map_passes_an_error_on() -> None:
    with pytest.raises(ZeroDivisionError):
        list(ordered_map(lambda number: 1 // number, [1, 0, 1], threads=2))


def test_ordered_map_holds_no_more_bytes_than_it_may() -> None:
    """The peak with 16 threads and photos of 50 MB: 64 of them, 3.2 GB, would be read ahead."""
    read = done = 0
    most = 0

    def photos() -> Any:
        nonlocal read, most
        for _ in range(100):
            read += 1
            most = max(most, read - done)
            yield 50

    for weight in ordered_map(lambda photo: photo, photos(), threads=16, weigh=lambda photo: photo, most_bytes=1000):
        assert weight == 50
        done += 1
    assert done == 100 and most in (21, 22)


def test_an_item_that_is_heavier_than_all_may_be_goes_alone() -> None:
    assert list(ordered_map(str, [10, 5000, 20], threads=4, weigh=int, most_bytes=100)) == ["10", "5000", "20"]
