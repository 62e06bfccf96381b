"""Reading ahead: order, errors, early ends, and bounded work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from histofold.inference.readahead import ahead


def test_order_and_end() -> None:
    assert list(ahead(iter(range(100)), 3)) == list(range(100))


def test_errors_arrive_in_their_place() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("bad strip")

    items = ahead(broken(), 2)
    assert next(items) == 1
    with pytest.raises(ValueError, match="bad strip"):
        next(items)


def test_no_more_than_depth_ahead() -> None:
    made: list[int] = []

    def counted() -> Iterator[int]:
        for index in range(50):
            made.append(index)
            yield index

    items = ahead(counted(), 2)
    next(items)
    time.sleep(0.3)
    # One handed out, two in the queue, one in the thread's hands.
    assert len(made) <= 4
    items.close()


def test_closing_early_ends_the_thread_and_the_iterator() -> None:
    ended = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.set()

    before = threading.active_count()
    items = ahead(endless(), 1)
    next(items)
    items.close()
    assert ended.is_set()
    assert threading.active_count() == before


def test_it_works_in_another_thread() -> None:
    assert next(ahead((threading.current_thread() for _ in range(1)), 1)) is not threading.current_thread()
