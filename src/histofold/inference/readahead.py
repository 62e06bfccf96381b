"""Run an iterator ahead in a thread, so that reading and computing do not wait for each other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

POLL = 0.1
"""Seconds after which a thread that waits for room looks whether anybody still wants its items."""


def ahead(items: Iterable[T], depth: int) -> Generator[T]:
    """Yield `items` in order while a thread works up to `depth` of them ahead.

    An error of the iterator is raised here, in its place. Closing this generator early stops the thread, which closes
    the iterator in turn.
    """
    worker = _Worker(items, depth)
    worker.thread.start()
    try:
        while not isinstance(item := worker.ready.get(), _End):
            yield item
            # A name here would keep a whole batch alive while the next is made.
            del item
        if item.error is not None:
            raise item.error
    finally:
        worker.stopped.set()
        worker.thread.join()


class _End:
    """Marks the end of the items, with the error that ended them."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Worker(Generic[T]):
    """The thread that fills the queue."""

    def __init__(self, items: Iterable[T], depth: int) -> None:
        self.items = items
        self.ready: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.work, name="histofold-readahead", daemon=True)

    def work(self) -> None:
        """Fill the queue until the items end, fail, or nobody wants them any more."""
        iterator = iter(self.items)
        error: BaseException | None = None
        try:
            for item in iterator:
                if not self.offer(item):
                    break
                del item
        except BaseException as caught:  # raised again by the consumer, in its own thread
            error = caught
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
        self.offer(_End(error))

    def offer(self, item: T | _End) -> bool:
        """Put an item as soon as there is room; False when the consumer is gone."""
        while not self.stopped.is_set():
            try:
                self.ready.put(item, timeout=POLL)
            except queue.Full:
                continue
            return True
        return False
