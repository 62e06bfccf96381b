"""From a reduced probability map to the mask of the full-size slide, band by band.

Bilinear with pixel centres in the middle of pixels: the full-size pixel Y lies at (Y + ½) / scale - ½ of the reduced
map, clamped at the map's edge. Between two reduced pixels on the same side of the threshold nothing is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
from numba import njit
from numpy.typing import NDArray

from histofold.rle import lines, threads
from histofold.rle.arrays import Bytes, Floats, Ints, Longs
from histofold.rle.dialects import Dialect, RleError
from histofold.rle.stream import RowStreamEncoder
from histofold.tiles.grid import rational, reduced

BAND = 256
"""Full-size rows in a band that is handed on."""
BLOCK = 64


@njit(nogil=True, cache=True)
def _cross(
    source: Bytes, above: Ints, shares: Floats, cells: Ints, fractions: Floats, level: float
) -> tuple[Longs, Ints, Ints]:
    """Change points of thresholded rows.

    Output row r lies between `source` rows above[r] and above[r] + 1 by shares[r]; output pixel p between columns of
    the map by fractions[p]; the pixels from cells[c] up to cells[c + 1] lie right of column c.
    """
    columns, n_rows, width = source.shape[1], above.size, fractions.size
    limit = np.float32(level)
    offsets = np.zeros(n_rows + 1, np.int64)
    capacity = 2 * width + 1024
    positions, values = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    blend = np.empty(columns + 1, np.float32)
    n = 0
    for row in range(n_rows):
        if n + width + 1 > capacity:
            capacity = 2 * capacity + width
            more = np.empty(capacity, np.int32)
            more[:n] = positions[:n]
            positions = more
            more = np.empty(capacity, np.int32)
            more[:n] = values[:n]
            values = more
        first, second = source[above[row]], source[min(above[row] + 1, source.shape[0] - 1)]
        share = shares[row]
        for c in range(columns):
            one = np.float32(first[c])
            blend[c] = one + share * (np.float32(second[c]) - one)
        blend[columns] = blend[columns - 1]
        on = False
        c = 0
        while c < columns:
            if c + BLOCK <= columns:
                differ = 0
                for k in range(BLOCK + 1):
                    differ += (blend[c + k] >= limit) != on
                if differ == 0:
                    c += BLOCK
                    continue
            for column in range(c, min(columns, c + BLOCK)):
                left, right = blend[column], blend[column + 1]
                p, p_end = cells[column], cells[column + 1]
                if (left >= limit) == on and (right >= limit) == on:
                    continue
                while p < p_end:
                    state = left + fractions[p] * (right - left) >= limit
                    if state != on:
                        positions[n], values[n] = p, np.int32(state)
                        n += 1
                        on = state
                    p += 1
            c += BLOCK
        offsets[row + 1] = n
    return offsets, positions[:n].copy(), values[:n].copy()


def _centres(count: int, scale: float, small: int) -> tuple[Ints, Floats]:
    """For each full-size pixel the reduced pixel before it and the distance from that one's centre, 0..1."""
    at = np.clip((np.arange(count) + 0.5) / scale - 0.5, 0, small - 1)
    before = np.minimum(np.floor(at), max(0, small - 2))
    return before.astype(np.int32), (at - before).astype(np.float32)


def level_of(threshold: float) -> float:
    """A threshold on 0..1 in the units of uint8 maps, 255 for 1; whole numbers come out whole.

    Raises:
        RleError: the threshold is outside of 0..256/255 (the upper end, above every value, means no foreground).
    """
    level = threshold * 255
    if not 0 <= level <= 256 + 1e-6:
        raise RleError(f"a threshold is a probability from 0 to 1, not {threshold}")
    return float(round(level)) if abs(level - round(level)) < 1e-6 else level


def upsample_lines(
    bands: Iterable[NDArray[np.uint8]], scale: float, height: int, width: int, threshold: float
) -> Iterator[lines.Lines]:
    """As `upsample_bands`, but gives the change points of at most `BAND` rows at a time and paints nothing."""
    scale = float(rational(scale))  # the one that the map's pixels were reduced by
    reduced_height, reduced_width = reduced(height, scale), reduced(width, scale)
    above, shares = _centres(height, scale, reduced_height)
    left, fractions = _centres(width, scale, reduced_width)
    cells = np.searchsorted(left, np.arange(reduced_width + 1)).astype(np.int32)
    level = level_of(threshold)
    top, done, held = 0, 0, np.empty((0, reduced_width), np.uint8)

    def work(origin: int, start: int, end: int) -> lines.Lines:
        rows = slice(origin + start, origin + end)
        arrays = (held, above[rows] - np.int32(top), shares[rows], cells, fractions)
        return lines.Lines(width, *_cross(*(lines.frozen(array) for array in arrays), level))

    for band in bands:
        if band.dtype != np.uint8 or band.ndim != 2 or band.shape[1] != reduced_width:
            raise RleError(f"expected uint8 bands of (rows, {reduced_width}), found {band.dtype} {band.shape}")
        held = np.concatenate([held, band])
        bottom = top + len(held)
        if bottom > reduced_height:
            raise RleError(f"{bottom} rows in the map of {height} rows at 1/{scale}; expected {reduced_height}")
        # Rows whose lower neighbour has come; at the map's end there is none to wait for.
        ready = height if bottom == reduced_height else int(np.searchsorted(above, bottom - 1))
        for start in range(done, ready, BAND):
            end = min(ready, start + BAND)
            spans = threads.over_rows(partial(work, start), end - start, width)
            yield lines.stack(spans, width)
        done = max(done, ready)
        keep = min(len(held) - 1, int(above[done]) - top) if done < height else len(held)
        held, top = held[max(0, keep) :], top + max(0, keep)
    if done < height:
        raise RleError(f"the map ends after {top + len(held)} of {reduced_height} rows")


def upsample_bands(
    bands: Iterable[NDArray[np.uint8]], scale: float, height: int, width: int, threshold: float
) -> Iterator[NDArray[np.bool_]]:
    """Upsample a uint8 probability map that comes in row bands, and apply a threshold on 0..1 (`>=`).

    `bands` hold (h, ceil(width / scale)) each, ceil(height / scale) rows together; gives boolean (h, width) bands of
    height rows together, top to bottom.

    Raises:
        RleError: bands of another type, width or number of rows, or a threshold that is no probability.
    """
    for rows in upsample_lines(bands, scale, height, width, threshold):
        yield lines.paint(rows).view(np.bool_)


def encode_upsampled(
    bands: Iterable[NDArray[np.uint8]],
    scale: float,
    height: int,
    width: int,
    threshold: float,
    dialect: str | Dialect = "columns",
    min_area: int = 0,
    max_hole: int = 0,
) -> str:
    """Upsample, threshold, clean and encode, painting nothing: what `upsample_bands` into `RowStreamEncoder` gives.

    Raises:
        RleError: as those two.
    """
    encoder = RowStreamEncoder(height, width, dialect, min_area, max_hole)
    for rows in upsample_lines(bands, scale, height, width, threshold):
        encoder.push_lines(rows)
    return encoder.finish()
