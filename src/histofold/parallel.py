"""Work spread over processes, one task a sample, with a progress bar and errors that do not stop the others."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

from histofold.errors import ResourceError
from histofold.progress import bar

Item = TypeVar("Item")
Result = TypeVar("Result")

KILLED = (
    "a worker process was killed, most often because memory ran out; what is finished is kept. Give the command again "
    "with fewer processes (prepare.workers=1 or evaluate.workers=1)"
)


def cores() -> int:
    """Cores that this process may use (the scheduler's affinity counts, not the machine's size)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def single_threaded() -> None:
    """Keep OpenCV to one thread in a worker process: many workers with many threads each are slower."""
    import cv2

    cv2.setNumThreads(1)


def begin() -> None:
    """Prepare a worker process: OpenCV keeps to one thread, and the process ends with the one that started it.

    Each worker holds both ends of the queue that tasks come through. Where its parent is killed nobody else closes it,
    so that workers would wait for another task for ever, with all their memory.
    """
    single_threaded()
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:  # not started by another process: nothing to wait for
        return
    wait([parent.sentinel])
    # At once, in whatever it is: nobody asks for the result any more, and files are either whole or absent.
    os._exit(1)


@contextmanager
def unthreaded() -> Iterator[None]:
    """Keep OpenCV to one thread while processes are forked: a fork that inherits its threads hangs."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def each(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int = 0,
    text: str = "",
    unit: str = "sample",
) -> Iterator[tuple[Item, Result | Exception]]:
    """Yield `(item, result or exception)` as they are done, in any order; `workers` 0 means one for each core.

    One worker, or one item, runs in this process, so that a debugger and coverage see it.
    Processes are spawned and not forked: GDAL and OpenMP do not survive a fork. Starting them takes seconds, so that
    they stay for the next call, until `workers_end`.

    Raises:
        ResourceError: a worker process was killed, as the system does where memory is short.
    """
    count = min(workers or cores(), len(items))
    with bar(total=len(items), text=text, unit=unit) as progress:
        if count <= 1:
            for item in items:
                yield item, _attempt(function, item)
                progress.update()
            return
        with _borrowed(count, workers or cores()) as pool:
            tasks: dict[Future[Result], Item] = {}
            try:
                tasks.update((pool.submit(function, item), item) for item in items)
                for task in as_completed(tasks):
                    error = task.exception()
                    if isinstance(error, BrokenProcessPool):
                        raise error
                    if error is not None and not isinstance(error, Exception):
                        raise error
                    yield tasks[task], error if error is not None else task.result()
                    progress.update()
            except BrokenProcessPool as error:
                raise ResourceError(KILLED) from error


class _Kept:
    """The processes that the next call of `each` finds started: a tuning calls it a dozen times."""

    pool: ProcessPoolExecutor | None = None
    count = 0
    made_in: tuple[str, dict[str, str]] = ("", {})


@contextmanager
def _borrowed(least: int, most: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that nobody else uses meanwhile, kept for the next call unless this one ends early."""
    pool = _pool(least, most)
    count, made_in = _Kept.count, _Kept.made_in
    _Kept.pool = None
    try:
        yield pool
    except BaseException:
        # Ctrl-C and generators that are closed early: what has not begun is not begun any more.
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    if _Kept.pool is None:
        _Kept.pool, _Kept.count, _Kept.made_in = pool, count, made_in
    else:  # of a call within this one
        pool.shutdown()


def _pool(least: int, most: int) -> ProcessPoolExecutor:
    """Processes, between `least` and `most` of them, with this process's folder and environment."""
    here = (str(Path.cwd()), dict(os.environ))
    if _Kept.pool is None or not least <= _Kept.count <= most or _Kept.made_in != here or _broken(_Kept.pool):
        _drop()
        context = multiprocessing.get_context("spawn")
        _Kept.pool = ProcessPoolExecutor(least, mp_context=context, initializer=begin)
        _Kept.count, _Kept.made_in = least, here
    return _Kept.pool


def _broken(pool: ProcessPoolExecutor) -> bool:
    """Whether one of its processes was killed while nothing was asked of it."""
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool:
        return True
    return False


def _drop() -> None:
    pool, _Kept.pool = _Kept.pool, None
    if pool is not None:
        pool.shutdown()


@contextmanager
def workers_end() -> Iterator[None]:
    """Worker processes that were started within end with it, so that they hold no memory in what comes after."""
    try:
        yield
    finally:
        _drop()


def _attempt(function: Callable[[Item], Result], item: Item) -> Result | Exception:
    try:
        return function(item)
    except Exception as error:  # handed to the caller, who decides
        return error
