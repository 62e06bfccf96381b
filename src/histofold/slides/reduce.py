"""Area-averaged reduction of rows as they come, exact for whole and fractional scales.

All sums are integers. A source pixel is `unit` units wide and an output pixel `cell` units, so that scale 1.5 is
cell / unit = 3 / 2 and every overlap of the two lattices is a whole number of units. Integer sums do not depend on
their order: however the rows are cut into chunks, and whatever the file's layout, the pixels are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from histofold.tiles.grid import rational

Planes = NDArray[np.uint8] | NDArray[np.uint16]
"""Rows of an image, one plane a channel: (channels, rows, width)."""


@dataclass(frozen=True)
class Axis:
    """How source pixels of one side fall into output pixels.

    Attributes:
        unit, cell: width of a source pixel and of an output pixel, in units.
        offset: units of the first source pixel that lie before the first output pixel.
        extent: units that are covered by source pixels.
        size: output pixels.
    """

    unit: int
    cell: int
    offset: int
    extent: int
    size: int

    @classmethod
    def of(cls, start: Fraction, length: Fraction, available: int, scale: Fraction, size: int) -> tuple[Axis, int, int]:
        """Plan `size` output pixels over [start, start + length) of a side of `available` source pixels.

        Gives the axis and the first and one past the last source pixel that it needs.
        """
        first = min(int(start), available - 1)
        unit = int(np.lcm.reduce([start.denominator, length.denominator, scale.denominator]))
        cell = int(scale * unit)
        offset = int((start - first) * unit)
        # A pyramid level may be a pixel shorter than the slide divided by its factor; what is missing is repeated.
        extent = max(1, min(int(length * unit), (available - first) * unit - offset))
        last = first + -(-(extent + offset) // unit)
        return cls(unit, cell, offset, extent, size), first, last


def _taps(axis: Axis) -> NDArray[np.int64]:
    """First and last source pixel, their weights, and the weight sum of each output pixel, (filled, 5)."""
    begin = np.arange(0, axis.extent, axis.cell, dtype=np.int64)
    end = np.minimum(begin + axis.cell, axis.extent)
    first = (begin + axis.offset) // axis.unit
    last = (end + axis.offset - 1) // axis.unit
    head = np.minimum(end, (first + 1) * axis.unit - axis.offset) - begin
    tail = np.where(last > first, end - (last * axis.unit - axis.offset), 0)
    return np.stack([first, last, head, tail, end - begin], axis=1)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _finish(sums, taps, unit, weight, ceiling, out) -> None:  # type: ignore[no-untyped-def]  # pragma: no cover
    """Sum columns of `sums` (channels, width) into one output row (size, channels) and clear them."""
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


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _push(chunk, first, unit, cell, offset, extent, sums, taps, unit_x, ceiling, out) -> int:  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add rows of `chunk` (channels, rows, width), the first being source row `first`; gives rows finished in `out`."""
    done = 0
    zero = sums[0, 0] * 0
    for row in range(chunk.shape[1]):
        begin = max((first + row) * unit - offset, 0)
        end = min((first + row + 1) * unit - offset, extent)
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
                _finish(sums, taps, unit_x, border - begin // cell * cell, ceiling, out[done])
                done += 1
            begin = stop
    return done


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _interleave(chunk, out) -> None:  # type: ignore[no-untyped-def]  # pragma: no cover
    """Turn (3, rows, width) into (rows, width, 3)."""
    for row in range(chunk.shape[1]):
        red, green, blue, line = chunk[0, row], chunk[1, row], chunk[2, row], out[row]
        for x in range(red.shape[0]):
            line[x, 0] = red[x]
            line[x, 1] = green[x]
            line[x, 2] = blue[x]


class Reducer:
    """Takes rows of planes in order and gives the rows of the reduced image that they finish.

    Args:
        rows, columns: how source pixels fall into output pixels.
        width: source pixels of a row.
        channels: planes.
        ceiling: value of the source that becomes 255: 255 for 8 bit, 65535 for 16 bit.
    """

    def __init__(self, rows: Axis, columns: Axis, width: int, channels: int = 3, ceiling: int = 255) -> None:
        self.rows = rows
        self.columns = columns
        self.ceiling = ceiling
        self.copies = rows.cell == rows.unit and columns.cell == columns.unit and ceiling == 255 and channels == 3
        self.copies &= rows.offset == 0 and columns.offset == 0 and rows.size * rows.cell == rows.extent
        self.copies &= columns.size * columns.cell == columns.extent
        largest = max(rows.cell, rows.unit) * ceiling
        kind = np.uint16 if largest < 1 << 16 else np.uint32 if largest < 1 << 32 else np.uint64
        self._sums: NDArray[Any] = np.zeros((channels, width), kind)
        self._taps = _taps(columns)
        self._first = 0
        self._row = 0

    def push(self, chunk: Planes) -> NDArray[np.uint8]:
        """Add source rows (channels, n, width) that follow the last ones; gives (finished rows, size, channels)."""
        channels, count, _ = chunk.shape
        if self.copies:
            out = np.empty((count, self.columns.size, channels), np.uint8)
            _interleave(chunk, out)
            self._row += count
            return out
        axis = self.rows
        room = count * axis.unit // axis.cell + 2
        out = np.empty((room, self.columns.size, channels), np.uint8)
        done = _push(
            chunk, self._first, axis.unit, axis.cell, axis.offset, axis.extent, self._sums, self._taps,
            self.columns.unit, float(self.ceiling), out,
        )  # fmt: skip
        self._first += count
        done = min(done, axis.size - self._row)
        self._row += done
        out = out[:done]
        if self._first * axis.unit - axis.offset >= axis.extent and 0 < done and self._row < axis.size:
            missing = axis.size - self._row
            self._row = axis.size
            out = np.concatenate([out, np.repeat(out[-1:], missing, axis=0)])
        return out


def reduce_array(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Reduce a whole image (H, W, C) uint8 by area to (ceil(H / scale), ceil(W / scale), C)."""
    exact = rational(scale)
    if exact == 1:
        return image
    height, width, channels = image.shape
    axes = []
    for length in (height, width):
        size = -(-length * exact.denominator // exact.numerator)
        axes.append(Axis.of(Fraction(0), Fraction(length), length, exact, size)[0])
    reducer = Reducer(axes[0], axes[1], width, channels)
    return reducer.push(np.ascontiguousarray(image.transpose(2, 0, 1)))
