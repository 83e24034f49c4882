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
