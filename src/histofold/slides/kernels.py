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
    """Add rows of `chunk` (channels, rows, width), the first being source row `first`; gives rows finished in `out`.

    `unit`, `cell` and `extent` are those of the rows' `Axis`; `unit_x` is that of the columns.
    """
    done = 0
    zero = sums[0, 0] * 0
    for row in range(chunk.shape[1]):
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
