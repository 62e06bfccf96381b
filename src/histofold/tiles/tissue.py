"""Tissue and glass: stained tissue has colour, glass, pen-free background and black borders have none.

The rule of the winners' tissue filters: saturation above 40 of 255, looked at in low resolution so that noise, dust and
the grain of compression do not count.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from histofold.slides.reduce import reduce_array

SATURATION = 40
"""HSV saturation, 0..255, above which a pixel is stained."""
BLACK = 25
"""Brightest channel, 0..255, below which a pixel is black: its saturation is noise."""
PIXEL = 16
"""Full-size pixels along one pixel of the low resolution."""


def tissue_mask(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where an RGB image (H, W, 3) uint8 shows tissue: (H, W) bool."""
    value = rgb.max(axis=2).astype(np.int32)
    chroma = value - rgb.min(axis=2)
    return (chroma * 255 > SATURATION * value) & (value >= BLACK)


def low_resolution(rgb: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Reduce an image that was read at `scale` until a pixel is about PIXEL full-size pixels wide."""
    factor = _factor(rgb, scale)
    return reduce_array(rgb, factor) if factor > 1 else rgb


def tissue_share(rgb: NDArray[np.uint8], scale: float) -> float:
    """Share 0..1 of an image (H, W, 3), read at `scale`, that is tissue in low resolution.

    The same as the mean of `tissue_mask(low_resolution(rgb, scale))`, without the arrays in between.
    """
    return float(_stained(np.ascontiguousarray(rgb), _factor(rgb, scale), SATURATION, BLACK))


def _factor(rgb: NDArray[np.uint8], scale: float) -> int:
    """Reduction to the low resolution; a small image keeps at least four pixels along its shorter side."""
    return max(1, min(round(PIXEL / scale), min(rgb.shape[:2]) // 4))


@njit(nogil=True, cache=True)
def _stained(rgb: NDArray[np.uint8], factor: int, saturation: int, black: int) -> float:  # pragma: no cover (compiled)
    height, width = rgb.shape[0], rgb.shape[1]
    rows, columns = (height + factor - 1) // factor, (width + factor - 1) // factor
    lines = rgb.reshape(height, 3 * width)
    sums = np.empty(3 * width, np.uint16)  # up to 257 rows; a factor is at most PIXEL
    count = 0
    for row in range(rows):
        bottom = min((row + 1) * factor, height)
        sums[:] = 0
        for y in range(row * factor, bottom):
            line = lines[y]
            for x in range(3 * width):
                sums[x] += line[x]
        for column in range(columns):
            area = (bottom - row * factor) * (min((column + 1) * factor, width) - column * factor)
            red, green, blue = np.int64(0), np.int64(0), np.int64(0)
            for x in range(3 * column * factor, 3 * min((column + 1) * factor, width), 3):
                red += sums[x]
                green += sums[x + 1]
                blue += sums[x + 2]
            red = (2 * red + area) // (2 * area)
            green = (2 * green + area) // (2 * area)
            blue = (2 * blue + area) // (2 * area)
            value = max(red, green, blue)
            if value >= black and (value - min(red, green, blue)) * 255 > saturation * value:
                count += 1
    return count / (rows * columns)
