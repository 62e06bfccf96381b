"""A slide: windows and full-width bands at any reduction, decoded by several threads in bounded memory."""

from __future__ import annotations

import math
import os
import queue
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histofold import parallel
from histofold.errors import ConfigError, DataError
from histofold.slides import foreign, pyramid
from histofold.slides.gdal import CACHE_BYTES
from histofold.slides.layout import TALL_BYTES, Layout, Level, read_layout
from histofold.slides.reduce import Axis, Reducer
from histofold.slides.source import Source, TiffSource
from histofold.tiles.grid import rational, reduced

CHUNK_BYTES = 12 << 20
"""Decoded bytes that are read at once: large enough to hide the overhead of a call, small enough for a CPU's cache."""

Image = NDArray[np.uint8]


class Slide:
    """One slide; opens its files when it is first read, in each process and thread anew.

    Attributes:
        path: the file.
        height, width: in full-size pixels.
        threads: decoding threads of `bands` and of large windows.
    """

    def __init__(self, path: Path | str, threads: int | None = None) -> None:
        self.path = Path(path)
        self.threads = threads or parallel.cores()
        self._layout, self._make = _open_file(self.path)
        self.height = self._layout.levels[0].height
        self.width = self._layout.levels[0].width
        self._faithful: dict[int, bool] = {}
        self._handles = {level.number: Handles(self._opener(level)) for level in self._layout.levels}

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Slide, (self.path, self.threads)

    def __repr__(self) -> str:
        return f"Slide({str(self.path)!r}, height={self.height}, width={self.width})"

    @property
    def factors(self) -> list[int]:
        """Reductions that the file holds: 1, then those of its pyramid."""
        return [level.factor for level in self._layout.levels]

    @property
    def kind(self) -> str:
        """Type of its samples, uint8 or uint16."""
        return self._layout.kind

    def samples(self) -> tuple[NDArray[Any], int]:
        """All pixels (H, W, 3) as they are stored, and which value is full intensity; for what fits into memory.

        Raises:
            DataError: the file is damaged.
        """
        # Copied, as the buffers of chunks are filled again.
        chunks = self._chunks(self._layout.levels[0], (0, self.height), (0, self.width))
        return np.concatenate([chunk.transpose(1, 2, 0).copy() for chunk in chunks]), self._layout.ceiling

    def close(self) -> None:
        """Close all handles; the slide opens again when it is read."""
        for handles in self._handles.values():
            handles.close()

    def window(self, y: int, x: int, height: int, width: int, scale: float = 1.0) -> Image:
        """Read full-size pixels [y, y + height) × [x, x + width), averaged over scale × scale cells.

        Gives (ceil(height / scale), ceil(width / scale), 3) uint8 RGB.

        Raises:
            DataError: the window reaches outside the slide, or the file is damaged.
            ConfigError: the scale is below 1.
        """
        if min(y, x) < 0 or min(height, width) < 1 or y + height > self.height or x + width > self.width:
            raise DataError(
                f"{self.path}: window y={y} x={x} height={height} width={width} reaches outside the slide of "
                f"{self.height} × {self.width} pixels"
            )
        rows = list(self._rows((y, height), (x, width), scale))
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def bands(self, height: int, scale: float = 1.0, overlap: int = 0) -> Iterator[tuple[int, Image]]:
        """Walk the slide from top to bottom in full-width bands, decoding everything once.

        Args:
            height: rows of a band, in rows of the reduced image; the last band may be lower.
            scale: reduction.
            overlap: rows that a band repeats from the one before, in rows of the reduced image.

        Yields the first reduced row and the band (rows, ceil(width / scale), 3). The next rows are decoded while the
        caller works on a band. Memory: a band, and a chunk of rows for each thread.
        """
        if height < 1 or not 0 <= overlap < height:
            raise ConfigError(f"bands of {height} rows with an overlap of {overlap}: expected 0 ≤ overlap < height")
        total = reduced(self.height, scale)
        first, held = 0, np.empty((0, reduced(self.width, scale), 3), np.uint8)
        parts: deque[Image] = deque()
        count = 0
        for rows in self._rows((0, self.height), (0, self.width), scale):
            parts.append(rows)
            count += len(rows)
            while count >= height or (first + count == total and count > 0):
                held = parts[0] if len(parts) == 1 else np.concatenate(parts)
                yield first, held[:height]
                if first + min(count, height) == total:
                    return
                step = height - overlap
                parts = deque([held[step:]])
                first, count = first + step, count - step

    def memory(self, height: int) -> int:
        """Bytes that `bands(height)` holds at once, roughly: chunks being decoded, and a band at full size."""
        level = self._layout.levels[0]
        row = 3 * self.width * np.dtype(self._layout.kind).itemsize
        chunk = min(_chunk_rows(level, row), self.height) * row
        handles = 1 if level.sequential else self.threads
        # Each handle has a compressed block, which noise makes larger, and its decoded copy, besides our own buffers;
        # GDAL's cache holds at least one colour of a block, however large.
        held = handles * (5 * level.block_bytes // 2 + self._layout.handle_bytes)
        return chunk * (handles + 2) + held + max(CACHE_BYTES, level.block_bytes // 3) + 3 * height * self.width

    def _rows(self, rows: tuple[int, int], columns: tuple[int, int], scale: float) -> Iterator[Image]:
        """Reduced rows of a window in pieces, top to bottom."""
        exact = rational(scale)
        full, level = self._layout.levels[0], self._level(exact, rows, columns)
        # A level that leaves out what is no whole pixel of it lacks a part of the last reduced row and column.
        rows, below = _split(rows, level.height * level.factor, exact)
        across, beside = _split(columns, level.width * level.factor, exact)
        whole = self._level_rows(level, rows, across, exact)
        yield from _joined(whole, self._level_rows(full, rows, beside, exact)) if beside[1] else whole
        if below[1]:
            yield from self._level_rows(full, below, columns, exact)

    def _level_rows(
        self, level: Level, rows: tuple[int, int], columns: tuple[int, int], exact: Fraction
    ) -> Iterator[Image]:
        scale = exact / level.factor
        top, left = rows[0] // level.factor, columns[0] // level.factor
        axis_y, axis_x = (
            Axis.of(Fraction(length, level.factor), available, scale, math.ceil(length / exact))
            for length, available in ((rows[1], level.height - top), (columns[1], level.width - left))
        )
        reducer = Reducer(axis_y, axis_x, axis_x.pixels, 3, self._layout.ceiling)
        for chunk in self._chunks(level, (top, top + axis_y.pixels), (left, left + axis_x.pixels)):
            done = reducer.push(chunk)
            if len(done):
                yield done

    def _level(self, scale: Fraction, rows: tuple[int, int], columns: tuple[int, int]) -> Level:
        """The smallest resolution whose pixels fit into the wanted ones and are averages of the full size.

        Its factor has to divide the scale and the borders of the window, so that no pixel of the level is split, as
        its inside is not known any more. So the result is that of the full size but for the level's own roundings.
        """
        full, *levels = self._layout.levels
        for level in reversed(levels):
            factor = level.factor
            sides = ((rows, self.height, level.height), (columns, self.width, level.width))
            fits = (scale / factor).denominator == 1 and all(
                start % factor == 0
                and (length % factor == 0 or start + length == side)
                and _split((start, length), have * factor, scale)[0][1] > 0
                for (start, length), side, have in sides
            )
            if fits and self._is_faithful(level, full):
                return level
        return full

    def _is_faithful(self, level: Level, full: Level) -> bool:
        if level.number not in self._faithful:
            self._faithful[level.number] = pyramid.faithful(level, full, self._read_level)
        return self._faithful[level.number]

    def _read_level(self, level: Level, y: int, x: int, height: int, width: int, scale: int) -> Image:
        return np.concatenate(list(self._level_rows(level, (y, height), (x, width), Fraction(scale))))

    def _chunks(self, level: Level, rows: tuple[int, int], columns: tuple[int, int]) -> Iterator[NDArray[Any]]:
        """Planes (3, n, columns) of a window in pieces that end where blocks end; read ahead by threads."""
        (top, bottom), (left, right) = rows, columns
        kind = np.dtype(self._layout.kind)
        count = _chunk_rows(level, 3 * (right - left) * kind.itemsize)
        above = level.above
        edges = [edge - above for edge in _edges(top + above, bottom + above, count, level.block_rows)]
        handles = self._handles[level.number]
        threads = min(1 if level.sequential else self.threads, len(edges) - 1)

        def read(first: int, last: int, buffer: NDArray[Any]) -> NDArray[Any]:
            out = buffer[: 3 * (last - first) * (right - left)].reshape(3, last - first, right - left)
            with handles.borrow() as source:
                source.read(first, left, out)
            return out

        size = 3 * min(count, bottom - top) * (right - left)
        if len(edges) == 2:
            yield read(top, bottom, np.empty(size, kind))
            return
        buffers = [np.empty(size, kind) for _ in range(threads + 1)]
        waiting: deque[tuple[Future[NDArray[Any]], NDArray[Any]]] = deque()
        with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
            try:
                for first, last in pairwise(edges):
                    if not buffers:
                        future, buffer = waiting.popleft()
                        yield future.result()
                        buffers.append(buffer)
                    buffer = buffers.pop()
                    waiting.append((pool.submit(read, first, last, buffer), buffer))
                while waiting:
                    yield waiting.popleft()[0].result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _opener(self, level: Level) -> Callable[[], Source]:
        return lambda: self._make(level)


class Handles:
    """Handles on one file: each thread borrows one, and as many are opened as are needed at once."""

    def __init__(self, make: Callable[[], Source]) -> None:
        self._make = make
        self._free: queue.LifoQueue[Source] = queue.LifoQueue()
        self._process = os.getpid()

    @contextmanager
    def borrow(self) -> Iterator[Source]:
        """A handle that nobody else uses inside this block."""
        if self._process != os.getpid():
            # After a fork the parent's handles share file positions with ours: leave them alone.
            self._free, self._process = queue.LifoQueue(), os.getpid()
        try:
            source = self._free.get_nowait()
        except queue.Empty:
            source = self._make()
        try:
            yield source
        finally:
            self._free.put(source)

    def close(self) -> None:
        """Close the handles that are not in use."""
        while True:
            try:
                self._free.get_nowait().close()
            except queue.Empty:
                return


def _open_file(path: Path) -> tuple[Layout, Callable[[Level], Source]]:
    if foreign.is_foreign(path):
        layout = foreign.read_layout(path)
        return layout, lambda level: foreign.OpenslideSource(path, level)
    layout = read_layout(path)
    return layout, lambda level: TiffSource(path, level)


def _chunk_rows(level: Level, row_bytes: int) -> int:
    """Rows read at once: whole blocks, about CHUNK_BYTES; a part of a block that is very tall."""
    if level.piecewise:
        return min(level.block_rows, max(1, TALL_BYTES // row_bytes))
    return level.block_rows * max(1, CHUNK_BYTES // (row_bytes * level.block_rows))


def _edges(top: int, bottom: int, count: int, block: int) -> list[int]:
    """Where the rows [top, bottom) are cut: every `count` of them, counted from where a block begins."""
    span = max(count, block)
    starts = range(top // span * span, bottom, span)
    inner = (edge for start in starts for edge in range(start, start + span, count) if top < edge < bottom)
    return [top, *inner, bottom]


def _split(part: tuple[int, int], covered: int, scale: Fraction) -> tuple[tuple[int, int], tuple[int, int]]:
    """Split (start, length) where the last reduced pixel begins, if only full-size pixels before `covered` are there.

    The second part has the length 0 where everything is there.
    """
    start, length = part
    if start + length <= covered:
        return part, (start + length, 0)
    whole = int(max(0, covered - start) // scale * scale)
    return (start, whole), (start + whole, length - whole)


def _joined(left: Iterator[Image], right: Iterator[Image]) -> Iterator[Image]:
    """Put the rows of two iterators beside each other, in the pieces of the first."""
    held = np.empty((0, 0, 3), np.uint8)
    for rows in left:
        while len(held) < len(rows):
            more = next(right)
            held = np.concatenate([held, more]) if len(held) else more
        yield np.concatenate([rows, held[: len(rows)]], axis=1)
        held = held[len(rows) :]


def open(path: Path | str, threads: int | None = None) -> Slide:  # noqa: A001  (slides.open is what it is)
    """Open a slide of any TIFF layout, or of any format that openslide reads.

    Args:
        path: the file.
        threads: decoding threads; by default one for each core. Worker processes should ask for their share.

    Raises:
        DataError: the file is missing, truncated, or not a picture that can be read.
    """
    return Slide(path, threads)


def thumbnail(path: Path | str, longest: int = 1024) -> tuple[Image, float]:
    """A whole slide, its longer side at most `longest` pixels; the smallest whole reduction that a pyramid can serve.

    Gives (H, W, 3) uint8 RGB and the reduction.
    """
    with open(path) as slide:
        scale = -(-max(slide.height, slide.width) // longest)
        step = max(factor for factor in slide.factors if factor <= scale)
        scale = -(-scale // step) * step
        return slide.window(0, 0, slide.height, slide.width, scale), float(scale)
