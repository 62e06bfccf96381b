"""A mask or label image as the change points of its lines, and the ways from and to pixels, columns and runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from histofold.rle import kernels, threads
from histofold.rle.arrays import Ints, Longs, Pixels
from histofold.rle.dialects import RleError

Array = TypeVar("Array", bound=NDArray[Any])


@dataclass(frozen=True)
class Lines:
    """The change points of `count` lines of `length` pixels each (see `histofold.rle.kernels`)."""

    length: int
    offsets: Longs
    positions: Ints
    values: Ints

    @property
    def count(self) -> int:
        """The number of lines."""
        return self.offsets.size - 1

    @property
    def arrays(self) -> tuple[Longs, Ints, Ints]:
        """The read-only arrays that the kernels take."""
        return frozen(self.offsets), frozen(self.positions), frozen(self.values)


def frozen(array: Array) -> Array:
    """A read-only view: one array type, and so one compiled kernel, whether the caller's array is writable or not."""
    view = array.view()
    view.flags.writeable = False
    return view


def scan(image: Pixels, *, binary: bool) -> Lines:
    """Find the change points of the rows of an (H, W) image; with `binary` every value but 0 counts as 1.

    Raises:
        RleError: the image is not two-dimensional, not boolean or integer, or holds labels outside 0..2³¹-1.
    """
    if image.ndim != 2:
        raise RleError(f"a mask has two axes (height, width); this array has the shape {image.shape}")
    if image.dtype.kind not in "bui":
        raise RleError(f"a mask is boolean or integer, this array is {image.dtype}; apply a threshold first")
    height, width = image.shape

    def work(start: int, end: int) -> Lines:
        rows = _words(image[start:end], binary)
        return Lines(width, *kernels.scan(frozen(rows.reshape(-1)), end - start, width, binary))

    return stack(threads.over_rows(work, height, width), width)


def _words(rows: Pixels, binary: bool) -> Pixels:
    """C-ordered rows as uint8, uint16 or uint32, without a copy where the pixels allow it."""
    if rows.dtype.itemsize == 1:
        rows = rows.view(np.uint8) if binary or rows.dtype.kind != "i" else rows
    elif binary:
        return np.ascontiguousarray(rows != 0).view(np.uint8)
    if rows.dtype in (np.uint8, np.uint16):
        return np.ascontiguousarray(rows)
    if rows.size and (rows.min() < 0 or rows.max() > np.iinfo(np.int32).max):
        raise RleError(f"labels go from 0 to 2147483647; found {rows.min()} to {rows.max()}")
    return np.ascontiguousarray(rows, dtype=np.uint32)


def stack(parts: list[Lines], length: int) -> Lines:
    """Put sets of lines of one length on top of each other."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Lines(length, np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.int32))
    begins = np.cumsum([0, *(part.positions.size for part in parts)])
    offsets = [part.offsets[:-1] + begin for part, begin in zip(parts, begins, strict=False)]
    return Lines(
        length,
        np.concatenate([*offsets, begins[-1:]]),
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


def transpose(lines: Lines) -> Lines:
    """The crossing lines: rows become columns and columns rows."""
    # The work of a line is in its change points; a pixel's worth of `over_rows` is a tenth of one.
    weight = 10 * lines.positions.size // max(1, lines.count)
    nothing = np.empty(0, np.int32)

    def count(first: int, last: int) -> tuple[int, int, Longs]:
        counts = np.zeros(lines.length, np.int64)
        kernels.cross(*lines.arrays, lines.length, first, last, counts, nothing, nothing)
        return first, last, counts

    parts = threads.over_rows(count, lines.count, weight)
    offsets = np.zeros(lines.length + 1, np.int64)
    for _, _, counts in parts:
        offsets[1:] += counts
    np.cumsum(offsets, out=offsets)
    positions, values = (np.empty(offsets[-1], np.int32) for _ in range(2))
    cursors, begin = {}, offsets[:-1].copy()
    for first, _, counts in parts:
        cursors[first], begin = begin, begin + counts

    def place(first: int, last: int) -> None:
        kernels.cross(*lines.arrays, lines.length, first, last, cursors[first], positions, values)

    threads.over_rows(place, lines.count, weight)
    return Lines(lines.count, offsets, positions, values)


def flatten(lines: Lines) -> tuple[Longs, Longs, Ints]:
    """The runs of all lines laid end to end: 0-based starts, lengths, values; runs go on over the ends of lines."""
    return kernels.flatten(*lines.arrays, lines.length)


def split(starts: Longs, lengths: Longs, values: Ints, count: int, length: int) -> Lines:
    """Cut sorted runs that do not overlap into `count` lines of `length` pixels; the opposite of `flatten`."""
    if length == 0:
        return Lines(0, np.zeros(count + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.int32))
    return Lines(length, *kernels.split(frozen(starts), frozen(lengths), frozen(values), count, length))


def paint(lines: Lines, dtype: type[np.generic] = np.uint8) -> Pixels:
    """The image of all lines, (count, length); background is never written, so that its memory is never touched."""
    image = np.zeros((lines.count, lines.length), dtype)

    def work(start: int, end: int) -> None:
        kernels.paint(*lines.arrays, lines.length, start, 0, image[start:end])

    threads.over_rows(work, lines.count, lines.length)
    return image


def area(lines: Lines) -> int:
    """The number of pixels that are not 0."""
    return int(flatten(lines)[1].sum())
