"""Row chunks of a large image spread over threads; the kernels that they run release the interpreter's lock."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from histofold.parallel import cores

Result = TypeVar("Result")

SMALL = 1 << 21
"""Pixels below which a second thread costs more than it saves."""
CHUNK = 1 << 24
"""Most pixels in a chunk: bounds the memory of chunks that have to be converted."""


def count() -> int:
    """Threads to use: all cores, but one in a worker process, where the other cores have their own worker."""
    return 1 if multiprocessing.parent_process() is not None else cores()


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    # Kept per process id: threads do not survive a fork, so a child must not wait for those of its parent.
    return ThreadPoolExecutor(count(), thread_name_prefix="histofold-rle")


def over_rows(function: Callable[[int, int], Result], height: int, width: int) -> list[Result]:
    """Call `function(first_row, end_row)` for chunks that cover `height` rows of `width` pixels; results in order."""
    threads = count() if height * width >= SMALL else 1
    rows = max(1, min(-(-height // threads), CHUNK // max(1, width)))
    spans = [(y, min(height, y + rows)) for y in range(0, height, rows)]
    if threads == 1 or len(spans) == 1:
        return [function(*span) for span in spans]
    return list(_pool(os.getpid()).map(lambda span: function(*span), spans))
