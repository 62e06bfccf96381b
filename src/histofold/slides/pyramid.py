"""Which level of a pyramid may stand for the full size: only one that was averaged, whatever wrote it.

Tools write pyramids by averaging or, by default in some, by picking every n-th pixel. The second kind is noisy and
would make the pixels of a slide depend on who saved it, so a level is compared with the full size before it is used.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from histofold.slides.layout import Level

SPOTS = 4
"""Places along each side at which a level is compared."""
SIDE = 32
"""Pixels of the level that are compared at each place, fewer for high factors."""
MOST_FULL = 1024
"""Full-size pixels along a side that are read for a comparison at most."""

Read = Callable[[Level, int, int, int, int, int], NDArray[np.uint8]]
"""Level, y, x, height, width in full-size pixels, whole reduction → (h, w, 3)."""


def faithful(level: Level, full: Level, read: Read) -> bool:
    """Whether a level is the area average of the full size rather than a selection of its pixels.

    The level must be at least twice as close to the average as nearest-neighbour pixels are; half a grey value is
    allowed to rounding.
    """
    side = max(1, min(SIDE, MOST_FULL // level.factor, level.height, level.width))
    own = near = 0.0
    for row in range(SPOTS):
        for column in range(SPOTS):
            y = (level.height - side) * (2 * row + 1) // (2 * SPOTS) * level.factor
            x = (level.width - side) * (2 * column + 1) // (2 * SPOTS) * level.factor
            height, width = min(side * level.factor, full.height - y), min(side * level.factor, full.width - x)
            height, width = height // level.factor * level.factor, width // level.factor * level.factor
            if not height or not width:
                continue
            pixels = read(full, y, x, height, width, 1)
            average = read(full, y, x, height, width, level.factor).astype(np.float64)
            own += float(np.abs(read(level, y, x, height, width, level.factor) - average).mean())
            near += float(np.abs(pixels[:: level.factor, :: level.factor] - average).mean())
    return own <= near / 2 + 0.5 * SPOTS * SPOTS
