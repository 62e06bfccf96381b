"""Grey-scale reconstruction and regional minima on 256 levels, in Numba; neighbours include diagonals."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from histofold.instances.cleanup import Labels

Grey = NDArray[np.uint8]

_AROUND = np.array([(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)])
"""Neighbours; the first four come before the pixel in scan order, the last four after it."""


def h_minima(surface: Grey, depth: int) -> Grey:
    """Fill every minimum that is less than `depth` levels deep, and all others by `depth` (Soille, Morphological
    Image Analysis): reconstruction by erosion of surface + depth over the surface.
    """
    raised = np.minimum(surface.astype(np.int32) + depth, 255).astype(np.uint8)
    return reconstruct(raised, surface)


@numba.njit(cache=True)
def reconstruct(seed: Grey, floor: Grey) -> Grey:
    """Reconstruction by erosion: lower `seed` (H, W), step by step, to its lowest neighbour, but not below `floor`.

    Vincent's hybrid algorithm (IEEE TIP 1993): two raster scans, then a queue for what they left.
    """
    height, width = seed.shape
    out = seed.copy()
    for y in range(height):
        for x in range(width):
            out[y, x] = max(floor[y, x], _lowest(out, y, x, 0))
    queue = np.empty(height * width, np.int32)
    queued = np.zeros(height * width, np.bool_)
    tail = 0
    for y in range(height - 1, -1, -1):
        for x in range(width - 1, -1, -1):
            out[y, x] = max(floor[y, x], _lowest(out, y, x, 4))
            if _can_lower(out, floor, y, x):
                queue[tail] = y * width + x
                queued[queue[tail]] = True
                tail += 1
    _settle(out, floor, queue, queued, tail)
    return out


@numba.njit(cache=True)
def _lowest(out: Grey, y: int, x: int, start: int) -> int:
    """Lowest of a pixel and four of its neighbours, those from `start` on."""
    height, width = out.shape
    value = out[y, x]
    for k in range(start, start + 4):
        row, column = y + _AROUND[k, 0], x + _AROUND[k, 1]
        if 0 <= row < height and 0 <= column < width:
            value = min(value, out[row, column])
    return value


@numba.njit(cache=True)
def _can_lower(out: Grey, floor: Grey, y: int, x: int) -> bool:
    """Whether a neighbour later in scan order still stands above both this pixel and its own floor."""
    height, width = out.shape
    for k in range(4, 8):
        row, column = y + _AROUND[k, 0], x + _AROUND[k, 1]
        inside = 0 <= row < height and 0 <= column < width
        if inside and out[row, column] > out[y, x] and out[row, column] > floor[row, column]:
            return True
    return False


@numba.njit(cache=True)
def _settle(out: Grey, floor: Grey, queue: Labels, queued: NDArray[np.bool_], tail: int) -> None:
    """Pass lower values on until nothing changes; a ring buffer that holds each pixel at most once cannot overflow."""
    height, width = out.shape
    size, head, held = queue.size, 0, tail
    while held > 0:
        pixel = queue[head]
        head, held = (head + 1) % size, held - 1
        queued[pixel] = False
        y, x = pixel // width, pixel % width
        for k in range(8):
            row, column = y + _AROUND[k, 0], x + _AROUND[k, 1]
            if not (0 <= row < height and 0 <= column < width):
                continue
            value = max(out[y, x], floor[row, column])
            if value < out[row, column]:
                out[row, column] = value
                if not queued[row * width + column]:
                    queue[(head + held) % size] = row * width + column
                    queued[row * width + column] = True
                    held += 1


@numba.njit(cache=True)
def regional_minima(surface: Grey) -> NDArray[np.bool_]:
    """Plateaus without a lower neighbour, (H, W) bool; a constant image is one minimum."""
    height, width = surface.shape
    minimum = np.ones((height, width), np.bool_)
    stack = np.empty(height * width, np.int32)
    for y in range(height):
        for x in range(width):
            if minimum[y, x] and _lowest_around(surface, y, x) < surface[y, x]:
                _discard(surface, minimum, stack, y, x)
    return minimum


@numba.njit(cache=True)
def _lowest_around(surface: Grey, y: int, x: int) -> int:
    return min(_lowest(surface, y, x, 0), _lowest(surface, y, x, 4))


@numba.njit(cache=True)
def _discard(surface: Grey, minimum: NDArray[np.bool_], stack: Labels, y: int, x: int) -> None:
    """Take a pixel's whole plateau out of the minima."""
    height, width = surface.shape
    minimum[y, x] = False
    stack[0], held = y * width + x, 1
    while held > 0:
        held -= 1
        row, column = stack[held] // width, stack[held] % width
        for k in range(8):
            near_y, near_x = row + _AROUND[k, 0], column + _AROUND[k, 1]
            if not (0 <= near_y < height and 0 <= near_x < width):
                continue
            if minimum[near_y, near_x] and surface[near_y, near_x] == surface[row, column]:
                minimum[near_y, near_x] = False
                stack[held] = near_y * width + near_x
                held += 1
