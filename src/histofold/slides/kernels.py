"""The inner loops of the reduction, compiled; see `histofold.slides.reduce`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Longs = NDArray[np.int64]
Numbers = NDArray[Any]


@njit(nogil=True, cache=True)
def finish(
    sums: Numbers, taps: Longs, unit: int, weight: int, ceiling: float, out: Pixels
) -> None:  # pragma: no cover (compiled)
    """Sum columns of `sums` (channels, width) into one output row (size, channels) and clear them.

    `taps` holds first and last source pixel, their weights, and the weight sum of each output pixel; `unit` is the
    weight of the pixels in between, and `weight` that of the rows that went into `sums`.
    """
    for channel in range(sums.shape[0]):
        line = sums[channel]
        for column in range(taps.shape[0]):
            first, last = taps[column, 0], taps[column, 1]
            total = taps[column, 2] * np.int64(line[first]) + taps[column, 3] * np.int64(line[last])
            inner = np.int64(0)
            for x in range(first + 1, last):
                inner += np.int64(line[x])
            total += unit * inner
            # Rounds half up; the quarter unit keeps a tie from falling below itself by a rounding of the division.
            share = 1.0 / (np.float64(weight) * np.float64(taps[column, 4]) * ceiling)
            out[column, channel] = np.uint8((total * 255.0 + 0.25) * share + 0.5)
        line[:] = 0
    for column in range(taps.shape[0], out.shape[0]):
        out[column] = out[taps.shape[0] - 1]


@njit(nogil=True, cache=True)
def push(
    chunk: Numbers,
    begin_row: int,
    end_row: int,
    first: int,
    unit: int,
    cell: int,
    extent: int,
    sums: Numbers,
    taps: Longs,
    unit_x: int,
    ceiling: float,
    out: Pixels,
) -> int:  # pragma: no cover (compiled)
    """Add rows [begin_row, end_row) of `chunk` (channels, rows, width); gives the number of rows finished in `out`.

    The first row of the chunk is source row `first`.

    `unit`, `cell` and `extent` are those of the rows' `Axis`; `unit_x` is that of the columns.
    """
    done = 0
    zero = sums[0, 0] * 0
    for row in range(begin_row, end_row):
        begin = (first + row) * unit
        end = min((first + row + 1) * unit, extent)
        while begin < end:
            border = min((begin // cell + 1) * cell, extent)
            stop = min(border, end)
            weight = zero + (stop - begin)
            for channel in range(chunk.shape[0]):
                line = sums[channel]
                source = chunk[channel, row]
                if weight == 1:
                    for x in range(source.shape[0]):
                        line[x] += source[x]
                else:
                    for x in range(source.shape[0]):
                        line[x] += weight * source[x]
            if stop == border:
                finish(sums, taps, unit_x, border - begin // cell * cell, ceiling, out[done])
                done += 1
            begin = stop
    return done


@njit(nogil=True, cache=True)
def interleave(chunk: Numbers, out: Pixels) -> None:  # pragma: no cover (compiled)
    """Turn (3, rows, width) into (rows, width, 3)."""
    for row in range(chunk.shape[1]):
        red, green, blue, line = chunk[0, row], chunk[1, row], chunk[2, row], out[row]
        for x in range(red.shape[0]):
            line[x, 0] = red[x]
            line[x, 1] = green[x]
            line[x, 2] = blue[x]


@njit(nogil=True, cache=True)
def push_cells(
    chunk: Numbers, begin_row: int, cells: int, side: int, line: Pixels, out: Pixels
) -> None:  # pragma: no cover (compiled)
    """Reduce `cells` rows of whole side × side cells at once: three times as fast as row by row.

    `chunk` (channels, rows, width) is uint8 and its row `begin_row` begins a cell; `line` (channels, size) is scratch.
    The sums of a cell's rows stay in the first cache, and the common sides 2 and 4 are written out so that the
    compiler can use vectors.
    """
    width = chunk.shape[2]
    span = max(1, 1024 // side) * side
    sums = np.empty(span, np.uint16)
    for cell in range(cells):
        top = begin_row + cell * side
        for channel in range(chunk.shape[0]):
            for left in range(0, width, span):
                size = min(left + span, width) - left
                for row in range(top, top + side):
                    source = chunk[channel, row, left : left + size]
                    if row == top:
                        for x in range(size):
                            sums[x] = source[x]
                    else:
                        for x in range(size):
                            sums[x] += source[x]
                _sum_columns(sums, size, side, line[channel, left // side :])
        interleave_row(line, out[cell])


@njit(nogil=True, cache=True)
def _sum_columns(sums: Numbers, size: int, side: int, line: Pixels) -> None:  # pragma: no cover (compiled)
    """Sum `side` neighbours of `sums` each and divide by the cell's area, rounding half up."""
    whole = size // side
    one, two, three = np.uint32(1), np.uint32(2), np.uint32(3)
    if side == 4:
        for j in range(whole):
            x = np.uint32(4 * j)
            left = np.uint32(sums[x]) + np.uint32(sums[x + one])
            right = np.uint32(sums[x + two]) + np.uint32(sums[x + three])
            line[j] = (left + right + np.uint32(8)) >> np.uint32(4)
    elif side == 2:
        for j in range(whole):
            x = np.uint32(2 * j)
            line[j] = (np.uint32(sums[x]) + np.uint32(sums[x + one]) + two) >> two
    else:
        share = 1.0 / (side * side)
        for j in range(whole):
            total = np.int64(0)
            for i in range(j * side, (j + 1) * side):
                total += np.int64(sums[i])
            line[j] = np.uint8((total + 0.25) * share + 0.5)
    if whole * side < size:
        rest = np.int64(0)
        for i in range(whole * side, size):
            rest += np.int64(sums[i])
        area = side * (size - whole * side)
        line[whole] = (2 * rest + area) // (2 * area)


@njit(nogil=True, cache=True)
def interleave_row(line: Pixels, out: Pixels) -> None:  # pragma: no cover (compiled)
    """Turn (channels, width) into (width, channels)."""
    if line.shape[0] == 3:
        for x in range(line.shape[1]):
            out[x, 0] = line[0, x]
            out[x, 1] = line[1, x]
            out[x, 2] = line[2, x]
    else:
        for x in range(line.shape[1]):
            for channel in range(line.shape[0]):
                out[x, channel] = line[channel, x]
