"""Area-averaged reduction of rows as they come, exact for whole and fractional scales.

All sums are integers. A source pixel is `unit` units wide and an output pixel `cell` units, so that scale 1.5 is
cell / unit = 3 / 2 and every overlap of the two lattices is a whole number of units. Integer sums do not depend on
their order: however the rows are cut into chunks, and whatever the file's layout, the pixels are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histofold.slides import kernels
from histofold.tiles.grid import rational, reduced

Planes = NDArray[np.uint8] | NDArray[np.uint16]
"""Rows of an image, one plane a channel: (channels, rows, width)."""


@dataclass(frozen=True)
class Axis:
    """How source pixels of one side fall into output pixels.

    Attributes:
        unit, cell: width of a source pixel and of an output pixel, in units.
        extent: units that are covered by source pixels.
        size: output pixels.
    """

    unit: int
    cell: int
    extent: int
    size: int

    @classmethod
    def of(cls, length: Fraction | int, available: int, scale: Fraction, size: int) -> Axis:
        """Plan `size` output pixels over `length` source pixels, of which `available` are there.

        A pyramid level may be up to a pixel shorter than the slide divided by its factor, and `length` is fractional
        where the last pixel of a level stands for less than a whole one.
        """
        exact = Fraction(length)
        unit = math.lcm(exact.denominator, scale.denominator)
        return cls(unit, int(scale * unit), min(int(exact * unit), available * unit), size)

    @property
    def pixels(self) -> int:
        """Source pixels that are needed."""
        return -(-self.extent // self.unit)


def _taps(axis: Axis) -> NDArray[np.int64]:
    """First and last source pixel, their weights, and the weight sum of each output pixel, (filled, 5)."""
    begin = np.arange(0, axis.extent, axis.cell, dtype=np.int64)
    end = np.minimum(begin + axis.cell, axis.extent)
    first = begin // axis.unit
    last = (end - 1) // axis.unit
    head = np.minimum(end, (first + 1) * axis.unit) - begin
    tail = np.where(last > first, end - last * axis.unit, 0)
    return np.stack([first, last, head, tail, end - begin], axis=1)


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
        self.copies &= rows.size * rows.cell == rows.extent and columns.size * columns.cell == columns.extent
        largest = max(rows.cell, rows.unit) * ceiling
        kind = np.uint16 if largest < 1 << 16 else np.uint32 if largest < 1 << 32 else np.uint64
        # A pyramid level may end before the last cell does: such cells take the general way.
        square = rows.unit == columns.unit == 1 and rows.cell == columns.cell and 2 <= rows.cell <= 64
        self.whole_cells = square and ceiling == 255 and columns.size == -(-width // columns.cell)
        self._line = np.empty((channels, columns.size if self.whole_cells else 0), np.uint8)
        self._sums: NDArray[Any] = np.zeros((channels, width), kind)
        self._taps = _taps(columns)
        self._first = 0
        self._row = 0

    def push(self, chunk: Planes) -> NDArray[np.uint8]:
        """Add source rows (channels, n, width) that follow the last ones; gives (finished rows, size, channels)."""
        channels, count, _ = chunk.shape
        if self.copies:
            out = np.empty((count, self.columns.size, channels), np.uint8)
            kernels.interleave(chunk, out)
            self._row += count
            return out
        axis = self.rows
        out = np.empty((count * axis.unit // axis.cell + 2, self.columns.size, channels), np.uint8)
        if self.whole_cells and chunk.dtype == np.uint8:
            done = self._push_cells(chunk, out)
        else:
            done = self._push_rows(chunk, 0, count, out)
        self._first += count
        done = min(done, axis.size - self._row)
        self._row += done
        out = out[:done]
        if self._first * axis.unit >= axis.extent and done > 0 and self._row < axis.size:
            missing = axis.size - self._row
            self._row = axis.size
            out = np.concatenate([out, np.repeat(out[-1:], missing, axis=0)])
        return out

    def _push_rows(self, chunk: Planes, begin: int, end: int, out: NDArray[np.uint8]) -> int:
        """Add rows [begin, end) of a chunk; gives how many rows of `out` are finished."""
        rows = self.rows
        return kernels.push(
            chunk, begin, end, self._first, rows.unit, rows.cell, rows.extent, self._sums, self._taps,
            self.columns.unit, float(self.ceiling), out,
        )  # fmt: skip

    def _push_cells(self, chunk: Planes, out: NDArray[np.uint8]) -> int:
        """As `_push_rows` for a whole chunk, cells that lie in it as a whole by the fast way."""
        side, count = self.rows.cell, chunk.shape[1]
        head = min(count, -self._first % side)
        done = self._push_rows(chunk, 0, head, out)
        cells = (count - head) // side
        kernels.push_cells(chunk, head, cells, side, self._line, out[done:])
        return done + cells + self._push_rows(chunk, head + cells * side, count, out[done + cells :])


def reduce_array(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Reduce a whole image (H, W, C) uint8 by area to (ceil(H / scale), ceil(W / scale), C)."""
    exact = rational(scale)
    if exact == 1:
        return image
    height, width, channels = image.shape
    rows, columns = (Axis.of(length, length, exact, reduced(length, exact)) for length in (height, width))
    return Reducer(rows, columns, width, channels).push(np.ascontiguousarray(image.transpose(2, 0, 1)))
