"""Threads for the DiCE kernels: work is cut into bands of rows or into planes, and shared out.

Bands are the same for any number of threads, and what they sum up is added in their order by who asked for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch

BAND = 32
"""Rows of a job: enough to make the rows shared with its neighbours cheap, few enough to keep many threads busy."""

BAND_GRAIN, PLANE_GRAIN = 1 << 17, 1 << 21
"""Values for each thread below which handing work over costs more than it saves; the work on planes is light."""


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process; a fork starts its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="dice")


def each(work: Callable[..., None], jobs: Iterable[tuple[Any, ...]], threads: int) -> None:
    """Run jobs on a number of threads; the kernels release the GIL.

    Each thread takes the next job when it is done with one, so that none waits for another that was held up.
    """
    rest = iter(list(jobs))
    others = [_pool(os.getpid(), torch.get_num_threads()).submit(_run, work, rest) for _ in range(threads - 1)]
    _run(work, rest)
    for other in others:
        other.result()


def _run(work: Callable[..., None], jobs: Iterator[tuple[Any, ...]]) -> None:
    """Work on jobs until none is left; a list's iterator gives each to one thread."""
    for job in jobs:
        work(*job)


def thread_count(values: int, grain: int) -> int:
    """How many threads are worth their while, at most torch's number."""
    return max(1, min(torch.get_num_threads(), values // grain))


def bands_of(batch: int, height: int) -> list[tuple[int, int, int]]:
    """Sample, first row and row behind the last of every job."""
    return [(n, top, min(top + BAND, height)) for n in range(batch) for top in range(0, height, BAND)]
