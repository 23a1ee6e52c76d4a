"""Batches ahead of time: in order, not too many, and errors where they are asked for."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from lapwing.errors import DataError
from lapwing.run.prefetch import Prefetch


def test_prefetching_keeps_the_order_and_stays_bounded() -> None:
    drawn = []

    def batches() -> Any:
        for number in range(100):
            drawn.append(number)
            yield number

    with Prefetch(batches(), depth=2) as ahead:
        assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
        assert len(drawn) <= 5 + 2 + 1
        assert ahead.waited > 0


def test_an_error_while_prefetching_reaches_the_one_who_asked() -> None:
    def batches() -> Any:
        yield 0
        raise DataError("tiny.hdf5: frame 3 is gone")

    with Prefetch(batches()) as ahead:
        assert next(ahead) == 0
        with pytest.raises(DataError, match="frame 3 is gone"):
            next(ahead)


def test_closing_stops_the_thread_that_waits_to_hand_over() -> None:
    def batches() -> Any:
        while True:
            yield 0

    with Prefetch(batches(), depth=1) as ahead:
        next(ahead)
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(StopIteration):
        next(ahead)
