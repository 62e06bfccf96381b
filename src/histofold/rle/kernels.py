"""Compiled loops over pixels and change points.

A *line* is a row or a column. It is described by its change points: the positions where the value differs from that of
the pixel before it, with the new value; before the first pixel of each line the value is 0. `offsets` (lines + 1) says
where a line's change points begin in `positions` and `values`. This form is closed under transposition, holds binary
masks and labels alike, and its size is that of the outline.

Every function is compiled once for each set of argument types and kept on disk (`cache=True`); callers pass read-only
contiguous arrays, so that a memory map and a fresh array share one compiled version.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from histofold.rle.arrays import Doubles, Ints, Longs, Pixels

BLOCK = 64  # pixels that are compared at once
PART = 8  # and in a block that has a change


@njit(nogil=True, cache=True)
def scan(flat: Pixels, n_lines: int, length: int, binary: bool) -> tuple[Longs, Ints, Ints]:
    """Find the change points of `n_lines` contiguous lines; with `binary` every value but 0 counts as 1.

    Blocks of equal pixels are passed over by an exclusive-or with the same pixels one to the left, which the compiler
    turns into wide vector instructions; indices are unsigned because a check for negative ones would prevent that.
    """
    one, width = np.uint64(1), np.uint64(length)
    block, part = np.uint64(BLOCK), np.uint64(PART)
    offsets = np.zeros(n_lines + 1, np.int64)
    capacity = length + 1024
    positions, values = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    n = 0
    for line in range(n_lines if length > 0 else 0):
        if n + length + 1 > capacity:
            capacity = 2 * capacity + length
            more = np.empty(capacity, np.int32)
            more[:n] = positions[:n]
            positions = more
            more = np.empty(capacity, np.int32)
            more[:n] = values[:n]
            values = more
        base = np.uint64(line) * width
        if flat[base] != 0:
            positions[n] = 0
            values[n] = 1 if binary else np.int32(flat[base])
            n += 1
        x = one
        while x < width:
            step = width - x
            if step >= block:
                changed = np.uint32(0)
                for k in range(BLOCK):
                    i = base + x + np.uint64(k)
                    changed = np.uint32(changed | np.uint32(flat[i] ^ flat[i - one]))
                if changed == 0:
                    x += block
                    continue
                changed = np.uint32(0)
                for k in range(PART):
                    i = base + x + np.uint64(k)
                    changed = np.uint32(changed | np.uint32(flat[i] ^ flat[i - one]))
                if changed == 0:
                    x += part
                    continue
            step = min(step, part)
            for k in range(step):
                i = base + x + np.uint64(k)
                before, here = np.int32(flat[i - one]), np.int32(flat[i])
                if binary:
                    before, here = np.int32(before != 0), np.int32(here != 0)
                # Written always and kept only when it is a change: no branch for the processor to guess.
                positions[n], values[n] = np.int32(x + np.uint64(k)), here
                n += before != here
            x += step
        offsets[line + 1] = n
    return offsets, positions[:n].copy(), values[:n].copy()


@njit(nogil=True, cache=True)
def cross(
    offsets: Longs, positions: Ints, values: Ints, length: int, first: int, last: int,
    cursor: Longs, placed: Ints, new_values: Ints,
) -> None:  # fmt: skip
    """Walk lines `first` to `last` for the change points of the crossing lines: where neighbours differ, pixels change.

    A counting sort in two calls: with `placed` empty it adds to `cursor` how many change points each crossing line
    gets; with room in `placed` it puts them where `cursor` points, and moves that on.
    """
    counting = placed.size == 0
    for line in range(first, last):
        i, i_end = (offsets[line - 1], offsets[line]) if line > 0 else (offsets[0], offsets[0])
        j, j_end = offsets[line], offsets[line + 1]
        above, here, x = np.int32(0), np.int32(0), 0
        while x < length and (i < i_end or j < j_end or above != here):
            end_above = positions[i] if i < i_end else length
            end_here = positions[j] if j < j_end else length
            end = min(end_above, end_here)
            if above != here:
                for c in range(x, end):
                    if not counting:
                        placed[cursor[c]], new_values[cursor[c]] = line, here
                    cursor[c] += 1
            if end_above == end and i < i_end:
                above = values[i]
                i += 1
            if end_here == end and j < j_end:
                here = values[j]
                j += 1
            x = end


@njit(nogil=True, cache=True)
def flatten(offsets: Longs, positions: Ints, values: Ints, length: int) -> tuple[Longs, Longs, Ints]:
    """Give the runs (start, length, value) of the lines laid end to end; a run may go on into the next line."""
    starts, lengths = np.empty(positions.size, np.int64), np.empty(positions.size, np.int64)
    found = np.empty(positions.size, np.int32)
    n, start, current = 0, 0, np.int32(0)
    n_lines = offsets.size - 1
    for line in range(n_lines):
        base = line * length
        first, end = offsets[line], offsets[line + 1]
        if current != 0 and (first == end or positions[first] != 0):
            starts[n], lengths[n], found[n] = start, base - start, current
            n += 1
            current = np.int32(0)
        for i in range(first, end):
            if values[i] != current:
                here = base + positions[i]
                if current != 0:
                    starts[n], lengths[n], found[n] = start, here - start, current
                    n += 1
                start, current = here, values[i]
    if current != 0:
        starts[n], lengths[n], found[n] = start, n_lines * length - start, current
        n += 1
    return starts[:n].copy(), lengths[:n].copy(), found[:n].copy()


@njit(nogil=True, cache=True)
def split(starts: Longs, lengths: Longs, given: Ints, n_lines: int, length: int) -> tuple[Longs, Ints, Ints]:
    """Cut sorted runs that do not overlap into the change points of `n_lines` lines; touching equal runs are joined."""
    bound = 0
    for r in range(starts.size):
        bound += 2 * ((starts[r] + lengths[r] - 1) // length - starts[r] // length + 1)
    positions, values = np.empty(bound, np.int32), np.empty(bound, np.int32)
    offsets = np.zeros(n_lines + 1, np.int64)
    n, done = 0, 0
    for r in range(starts.size):
        start, end, value = starts[r], starts[r] + lengths[r], given[r]
        while start < end:
            line = start // length
            while done < line:
                done += 1
                offsets[done] = n
            position, stop = start - line * length, min(end, (line + 1) * length) - line * length
            if n > offsets[line] and positions[n - 1] == position:
                n -= 1  # the run before ends here: its end is replaced, or taken away when the value goes on
            if n == offsets[line] or values[n - 1] != value:
                positions[n], values[n] = position, value
                n += 1
            if stop < length:
                positions[n], values[n] = stop, 0
                n += 1
            start = line * length + stop
    while done < n_lines:
        done += 1
        offsets[done] = n
    return offsets, positions[:n].copy(), values[:n].copy()


@njit(nogil=True, cache=True)
def paint(offsets: Longs, positions: Ints, values: Ints, length: int, y: int, x: int, out: Pixels) -> None:
    """Fill `out`, zero before, with the window of rows from `y` and pixels from `x`; what lies outside stays 0."""
    height, width = out.shape
    for row in range(max(0, -y), min(height, offsets.size - 1 - y)):
        first, end = offsets[y + row], offsets[y + row + 1]
        if x > 0 and end - first > 8:  # go to the last change at or before x
            low, high = first, end
            while high - low > 1:
                middle = (low + high) // 2
                if positions[middle] <= x:
                    low = middle
                else:
                    high = middle
            first = low
        for i in range(first, end):
            left = max(0, positions[i] - x)
            if left >= width:
                break
            if values[i] != 0:
                right = min(width, (positions[i + 1] if i + 1 < end else length) - x)
                # A local value and unsigned indices: only so does the compiler see that this is a plain fill.
                value = values[i]
                for k in range(np.uint64(left), np.uint64(right)):
                    out[np.uint64(row), k] = value


@njit(nogil=True, cache=True)
def cover(
    offsets: Longs, positions: Ints, values: Ints, length: int, y: int, x: int, height: int, width: int, scale: float,
    out: Doubles,
) -> None:  # fmt: skip
    """Add to `out` (cells) the foreground area, in pixels, of each scale × scale cell of a window (binary lines)."""
    for row in range(max(0, -y), min(height, offsets.size - 1 - y)):
        cell = min(int(row / scale), out.shape[0] - 1)
        upper = min(1.0, (cell + 1) * scale - row)  # the part of this row in `cell`; the rest is in the next
        first, end = offsets[y + row], offsets[y + row + 1]
        for i in range(first, end):
            if values[i] == 0:
                continue
            left = max(0, positions[i] - x)
            right = min(width, (positions[i + 1] if i + 1 < end else length) - x)
            if left >= right:
                continue
            column = min(int(left / scale), out.shape[1] - 1)
            at = float(left)
            while at < right:
                edge = min(float(right), (column + 1) * scale) if column + 1 < out.shape[1] else float(right)
                out[cell, column] += upper * (edge - at)
                if upper < 1.0 and cell + 1 < out.shape[0]:
                    out[cell + 1, column] += (1.0 - upper) * (edge - at)
                at = max(at, edge)
                column += 1


@njit(nogil=True, cache=True)
def shared(
    offsets: Longs, positions: Ints, values: Ints, offsets_b: Longs, positions_b: Ints, values_b: Ints, length: int,
) -> int:  # fmt: skip
    """Count the pixels that are foreground in both of two sets of lines of equal length."""
    total = 0
    for line in range(offsets.size - 1):
        i, i_end, j, j_end = offsets[line], offsets[line + 1], offsets_b[line], offsets_b[line + 1]
        if i == i_end or j == j_end:
            continue
        on, on_b, x = False, False, 0
        while x < length:
            end_a = positions[i] if i < i_end else length
            end_b = positions_b[j] if j < j_end else length
            end = min(end_a, end_b)
            if on and on_b:
                total += end - x
            if end_a == end and i < i_end:
                on = values[i] != 0
                i += 1
            if end_b == end and j < j_end:
                on_b = values_b[j] != 0
                j += 1
            x = end
    return total
