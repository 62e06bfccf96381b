"""The C library's allocator, told to keep freed memory in one place."""

from __future__ import annotations

import ctypes
from functools import cache

_ARENA_MAX = -8
"""M_ARENA_MAX of glibc's malloc.h."""


@cache
def one_arena() -> bool:
    """Let all threads that start from now on share one arena; whether the C library knows how to.

    By default each thread frees into an arena of its own. Reading, blending and writing pass bands of some ten
    megabytes from thread to thread, so several arenas come to hold bands that nobody uses: 30 % more memory on a slide
    of 40,000 pixels' width, and more on a longer one. Sharing costs no time: bands are few and large. It has to be
    asked for before libraries start their threads, whose arenas would be shared out among later ones.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_ARENA_MAX, 1))
    except (AttributeError, OSError, TypeError):
        # Another C library: macOS and Windows return large blocks at once.
        return False
