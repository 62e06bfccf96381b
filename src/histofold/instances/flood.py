"""Marker watershed on 256 levels: a bucket queue gives every pixel once, in linear time."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from histofold.instances.cleanup import Labels

LEVELS = 256
"""Levels of a flooded surface; bands are uint8 on disk, so that finer ones would not be real."""


def levels(surface: NDArray[np.float32], low: float = 0.0, high: float = 1.0) -> NDArray[np.uint8]:
    """Map `low`..`high` to 0..255, on a fixed scale: an empty image stays empty."""
    scaled = (surface - np.float32(low)) * np.float32(255.0 / (high - low)) + np.float32(0.5)
    return np.clip(scaled, 0, 255).astype(np.uint8)


def flood(surface: NDArray[np.uint8], markers: Labels, mask: NDArray[np.bool_]) -> Labels:
    """Grow markers over a surface, low levels first, within a mask; all (H, W).

    Neighbours share an edge. Where two floods meet, both keep what they reached: there are no lines. On a plateau the
    nearer marker wins. Markers outside the mask are ignored, parts of the mask without a marker stay 0.
    """
    return _flood(surface, markers, mask)


@numba.njit(nogil=True, cache=True, inline="always")
def _push(pixel: int, level: int, first: Labels, last: Labels, after: Labels) -> None:
    if first[level] < 0:
        first[level] = pixel
    else:
        after[last[level]] = pixel
    last[level] = pixel
    after[pixel] = -1


@numba.njit(nogil=True, cache=True)
def _flood(surface: NDArray[np.uint8], markers: Labels, mask: NDArray[np.bool_]) -> Labels:
    height, width = surface.shape
    out = np.zeros((height, width), np.int32)
    first = np.full(256, -1, np.int32)
    last = np.full(256, -1, np.int32)
    after = np.empty(height * width, np.int32)
    for y in range(height):
        for x in range(width):
            if mask[y, x] and markers[y, x] > 0:
                out[y, x] = markers[y, x]
                _push(y * width + x, surface[y, x], first, last, after)
    for level in range(256):
        while first[level] >= 0:
            pixel = first[level]
            first[level] = after[pixel]
            y, x = pixel // width, pixel % width
            for dy, dx in ((-1, 0), (0, -1), (0, 1), (1, 0)):
                row, column = y + dy, x + dx
                inside = 0 <= row < height and 0 <= column < width
                if inside and mask[row, column] and out[row, column] == 0:
                    out[row, column] = out[y, x]
                    _push(row * width + column, max(level, surface[row, column]), first, last, after)
    return out
