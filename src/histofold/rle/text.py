"""Between run-length texts and arrays of runs: formatting, parsing, and the rules that a text must keep."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numba import njit

from histofold.rle import threads
from histofold.rle.arrays import Bytes, Longs
from histofold.rle.dialects import Dialect, RleError
from histofold.rle.lines import frozen

SPACE, ZERO, NINE, MINUS = 32, 48, 57, 45
DIGITS = 18
"""Most digits that surely fit 64 bits."""


@njit(nogil=True, cache=True)
def _format(starts: Longs, lengths: Longs, groups: Longs, base: int) -> tuple[Bytes, Longs]:
    """Write `start length` pairs with single spaces; group g is `out[bounds[g] : bounds[g + 1]]`."""
    largest = 1
    for r in range(starts.size):
        largest = max(largest, starts[r] + base, lengths[r])
    width = 2
    while largest >= 10:
        largest //= 10
        width += 1
    out = np.empty(2 * width * starts.size, np.uint8)
    bounds = np.zeros(groups.size, np.int64)
    digits = np.empty(20, np.uint8)
    n = 0
    for g in range(groups.size - 1):
        for r in range(groups[g], groups[g + 1]):
            for half in range(2):
                number = starts[r] + base if half == 0 else lengths[r]
                if n > bounds[g]:
                    out[n] = SPACE
                    n += 1
                count = 0
                while True:
                    digits[count] = ZERO + number % 10
                    count += 1
                    number //= 10
                    if number == 0:
                        break
                while count > 0:
                    count -= 1
                    out[n] = digits[count]
                    n += 1
        bounds[g + 1] = n
    return out[:n], bounds


@njit(nogil=True, cache=True)
def _parse(text: Bytes) -> tuple[Longs, int]:
    """Read integers between white space; gives them and the index of the first that is none, or -1."""
    numbers = np.empty(text.size // 2 + 1, np.int64)
    n, i = 0, 0
    while i < text.size:
        if text[i] == SPACE or 9 <= text[i] <= 13:
            i += 1
            continue
        negative = text[i] == MINUS
        i += 1 if negative else 0
        number, first = 0, i
        while i < text.size and ZERO <= text[i] <= NINE:
            number = 10 * number + (text[i] - ZERO)
            i += 1
        ended = i == text.size or text[i] == SPACE or 9 <= text[i] <= 13
        if not ended or i == first or i - first > DIGITS:
            return numbers[:n].copy(), n
        numbers[n] = -number if negative else number
        n += 1
    return numbers[:n].copy(), -1


@njit(nogil=True, cache=True)
def _first_fault(starts: Longs, lengths: Longs, pixels: int) -> tuple[int, int]:
    """Check 0-based runs; gives (rule broken, index of the run), rule 0 when all is well."""
    end, last = 0, -1
    for r in range(starts.size):
        if starts[r] < 0:
            return 1, r
        if lengths[r] <= 0:
            return 2, r
        if starts[r] + lengths[r] > pixels:
            return 3, r
        if starts[r] < last:
            return 4, r
        if starts[r] < end:
            return 5, r
        end, last = starts[r] + lengths[r], starts[r]
    return 0, 0


def write(starts: Longs, lengths: Longs, dialect: Dialect) -> str:
    """Format 0-based runs as a text of the dialect."""
    if starts.size == 0:
        return dialect.empty

    def part(first: int, last: int) -> str:
        groups = np.array([0, last - first])
        return write_groups(starts[first:last], lengths[first:last], groups, dialect)[0]

    return " ".join(threads.over_rows(part, starts.size, 64))  # a run costs about as much as 64 pixels


def write_groups(starts: Longs, lengths: Longs, groups: Longs, dialect: Dialect) -> list[str]:
    """Format runs as one text a group; group g are the runs `groups[g]` to `groups[g + 1]`, at least one."""
    out, bounds = _format(frozen(starts), frozen(lengths), frozen(groups), dialect.base)
    text = out.tobytes().decode("ascii")
    cuts = bounds.tolist()
    return [text[begin:end] for begin, end in pairwise(cuts)]


def read(text: str, pixels: int, dialect: Dialect) -> tuple[Longs, Longs]:
    """Parse a text to 0-based starts and lengths of runs within `pixels` pixels.

    Raises:
        RleError: no text, not integers, an odd count, a start before the first pixel, a length that is not positive,
            a run past the end, runs that are unsorted or overlap; says which run.
    """
    if not isinstance(text, str):
        raise RleError(f"expected a run-length text, found {type(text).__name__} ({text!r}); read the CSV as text")
    if text.strip() == dialect.empty:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    numbers, bad = _parse(frozen(np.frombuffer(text.encode("ascii", "replace"), np.uint8)))
    if bad >= 0:
        raise RleError(f"run {bad // 2 + 1}: {text.split()[bad][:20]!r} is not an integer of at most {DIGITS} digits")
    if numbers.size == 0:
        raise RleError(f"an empty text; dialect {dialect.name!r} writes a mask without foreground {dialect.empty!r}")
    if numbers.size % 2:
        raise RleError(
            f"{numbers.size} numbers, an odd count; expected pairs of start and length: is the text cut off?"
        )
    starts, lengths = numbers[0::2] - dialect.base, np.ascontiguousarray(numbers[1::2])
    rule, run = _first_fault(frozen(starts), frozen(lengths), pixels)
    if rule:
        raise RleError(_explain(rule, run, starts, lengths, pixels, dialect))
    return starts, lengths


def _explain(rule: int, run: int, starts: Longs, lengths: Longs, pixels: int, dialect: Dialect) -> str:
    base = dialect.base
    last = pixels - 1 + base
    where = f"run {run + 1} of {starts.size} ({starts[run] + base} {lengths[run]})"
    before = f"the run before it ({starts[run - 1] + base} {lengths[run - 1]})"
    return {
        1: f"{where}: the first pixel has the number {base}",
        2: f"{where}: a length is at least 1",
        3: f"{where}: goes past the last pixel, {last}; is the shape right, (height, width) and not (width, height)?",
        4: f"{where}: starts before {before}; runs are sorted by their start",
        5: f"{where}: overlaps {before}",
    }[rule]
