"""Which level of a pyramid may stand for the full size: only one that was averaged, over the right pixels.

Tools write pyramids by averaging or, by default in some, by picking every n-th pixel. The second kind is noisy and
would make the pixels of a slide depend on who saved it. Where a side is no multiple of the factor, tools differ, too:
some average factor × factor pixels and leave out the rest or average what there is of it, others (GDAL) stretch the
level over the whole side, so that its pixels drift by up to factor - 1 full-size pixels towards the far end. So a level
is compared with the full size, from its first pixels to its last, before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from histofold.slides.layout import Level

SPOTS = 5
"""Places along each side at which a level is compared; the first and the last are at its ends."""
SIDE = 32
"""Pixels of the level that are compared at each place, fewer for high factors."""
MOST_FULL = 512
"""Full-size pixels along a side that are read for a comparison at most."""
AGREEMENT = 1.5
"""Grey values that a level may differ by on average at any place: roundings, as each level is made from the one above.
Where there is texture it may be half of what picked pixels differ by: levels are often compressed with losses."""

Read = Callable[[Level, int, int, int, int, int], NDArray[np.uint8]]
"""Level, y, x, height, width in full-size pixels, whole reduction → (h, w, 3)."""
Edges = NDArray[np.float64]
"""Where the pixels of a level begin, and the last one ends, in full-size pixels."""
Differences = NDArray[np.float64]


def faithful(level: Level, full: Level, read: Read) -> bool:
    """Whether a level is the area average of the full size over factor × factor pixels.

    It must be at least twice as close to the average as nearest-neighbour pixels are, half a grey value being allowed
    to rounding; agree at every place; and fit better than if it were stretched, along either side or both.
    """
    own = near = 0.0
    stretched: NDArray[np.float64] = np.zeros(0)
    count = 0
    for y, x in product(_starts(level, level.height), _starts(level, level.width)):
        average, *others, picked = _differences(level, full, y, x, read)
        if not _agrees(level, full, y, x, average, picked):
            return False
        own, near, count = own + float(average.mean()), near + float(picked.mean()), count + 1
        means = np.array([other.mean() for other in others])
        stretched = means + stretched if count > 1 else means
    return own <= near / 2 + 0.5 * count and bool((own < stretched).all())


def _side(level: Level) -> int:
    return max(1, min(SIDE, MOST_FULL // level.factor, level.height, level.width))


def _starts(level: Level, length: int) -> list[int]:
    """First pixels of the places along one side of the level."""
    return sorted({(length - _side(level)) * spot // (SPOTS - 1) for spot in range(SPOTS)})


def _differences(level: Level, full: Level, y: int, x: int, read: Read) -> list[Differences]:
    """How far each pixel at a place is from the average, from those of stretched levels, and picked ones from it.

    Args:
        y, x: first pixel of the place, in the level's.
    """
    side, factor = _side(level), level.factor
    rows = list(_edges(y, side, factor, level.height, full.height))
    columns = list(_edges(x, side, factor, level.width, full.width))
    (top, bottom), (left, right) = (
        (int(min(edges[0] for edges in options)), int(np.ceil(max(edges[-1] for edges in options))))
        for options in (rows, columns)
    )
    pixels = read(full, top, left, bottom - top, right - left, 1).astype(np.float64)
    extent = (min(side * factor, full.height - y * factor), min(side * factor, full.width - x * factor))
    have = read(level, y * factor, x * factor, *extent, factor)
    averages = [_average(_average(pixels, down - top, 0), across - left, 1) for down, across in product(rows, columns)]
    picked = pixels[(rows[0][:-1] - top).astype(int)][:, (columns[0][:-1] - left).astype(int)]
    return [*(np.abs(have - average) for average in averages), np.abs(picked - averages[0])]


def _edges(first: int, side: int, factor: int, length: int, full: int) -> Iterator[Edges]:
    """Full-size places of `side` pixels of a level: with the factor, and stretched where that makes a difference.

    Args:
        first: pixel of the level.
        length, full: pixels of the level and of the full size along this side.
    """
    borders = np.arange(first, first + side + 1, dtype=np.float64)
    yield np.minimum(borders * factor, full)
    if length * factor != full:
        yield borders * (full / length)


def _average(pixels: NDArray[np.float64], edges: Edges, axis: int) -> NDArray[np.float64]:
    """Average pixels between edges, which may lie within pixels, along one axis."""
    sums = np.insert(np.cumsum(pixels, axis), 0, 0, axis)
    below = np.minimum(edges.astype(int), pixels.shape[axis] - 1)
    rest = np.expand_dims(edges - below, tuple(other for other in range(pixels.ndim) if other != axis))
    at = np.take(sums, below, axis) + rest * np.take(pixels, below, axis)
    widths = np.expand_dims(np.diff(edges), tuple(other for other in range(pixels.ndim) if other != axis))
    return np.diff(at, axis=axis) / widths


def _agrees(level: Level, full: Level, y: int, x: int, own: Differences, near: Differences) -> bool:
    """Whether the level agrees at a place as a whole, and in a last row or column that is no whole cell."""
    parts = [(own, near)]
    if y + len(own) == level.height and level.height * level.factor > full.height:
        parts.append((own[-1], near[-1]))
    if x + own.shape[1] == level.width and level.width * level.factor > full.width:
        parts.append((own[:, -1], near[:, -1]))
    return all(mine.mean() <= max(AGREEMENT, picked.mean() / 2) for mine, picked in parts)
