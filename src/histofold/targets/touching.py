"""Numba kernels of the touching-border channel: which pixels lie between two objects."""

from __future__ import annotations

import math
from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

from histofold.targets.base import Labels

FAR = np.int32(1 << 30)
"""Squared distance of what has not been reached."""


def touching_border(labels: Labels, width: float, narrowest: int, widest: int) -> NDArray[np.uint8]:
    """Mark the pixels whose two nearest objects are both near; (H, W) of 0 and 1.

    Args:
        labels: (H, W) int32.
        width: half-width as a share of the smaller object's equivalent radius.
        narrowest: smallest half-width in pixels.
        widest: largest half-width in pixels.
    """
    reach = half_widths(labels, width, narrowest, widest)
    offsets, ends = discs(widest)
    return _border(labels, reach, offsets, ends)


def half_widths(labels: Labels, width: float, narrowest: int, widest: int) -> NDArray[np.int32]:
    """Border half-width in pixels of each label, index = label; from the area that is visible."""
    areas = np.bincount(labels.ravel())
    reach = np.rint(width * np.sqrt(areas / math.pi))
    return np.clip(reach, narrowest, widest).astype(np.int32)


@lru_cache(maxsize=16)
def discs(radius: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Offsets (n, 3) dy, dx, squared length of a disc, nearest first, and how many lie within each radius 0..radius.

    A disc of radius r holds squared lengths up to r (r + 1), half a pixel more than r: that of radius 1 is the whole
    3×3, so that cores of instances which meet at a corner do not connect.
    """
    axis = np.arange(-radius, radius + 1)
    dy, dx = (grid.ravel() for grid in np.meshgrid(axis, axis, indexing="ij"))
    square = dy * dy + dx * dx
    order = np.argsort(square, kind="stable")
    order = order[square[order] <= radius * (radius + 1)]
    steps = np.arange(radius + 1)
    ends = np.searchsorted(square[order], steps * (steps + 1), side="right")
    return np.stack([dy, dx, square], axis=1)[order].astype(np.int32), ends.astype(np.int64)


@numba.njit(cache=True)
def _is_outline(labels: Labels, y: int, x: int) -> bool:
    """Whether one of the four neighbours has another label; the image's edge is none."""
    height, width = labels.shape
    here = labels[y, x]
    return (
        (y > 0 and labels[y - 1, x] != here)
        or (y + 1 < height and labels[y + 1, x] != here)
        or (x > 0 and labels[y, x - 1] != here)
        or (x + 1 < width and labels[y, x + 1] != here)
    )


@numba.njit(cache=True)
def _offer(first: Labels, second: Labels, near: Labels, next_near: Labels, at: int, label: int, square: int) -> None:
    """Keep the two nearest different labels of a pixel."""
    if label == first[at]:
        near[at] = min(near[at], square)
    elif square < near[at]:
        second[at], next_near[at] = first[at], near[at]
        first[at], near[at] = label, square
    elif square < next_near[at]:
        second[at], next_near[at] = label, square


@numba.njit(cache=True)
def _two_nearest(
    labels: Labels, reach: NDArray[np.int32], offsets: NDArray[np.int32], ends: NDArray[np.int64]
) -> tuple[Labels, Labels, Labels, Labels]:
    """Each object's outline stamps its disc: the two nearest objects of a pixel within their reach, flat arrays."""
    height, width = labels.shape
    first = labels.copy().ravel()
    near = np.where(first > 0, np.int32(0), FAR).astype(np.int32)
    second = np.zeros(first.size, np.int32)
    next_near = np.full(first.size, FAR, np.int32)
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            if label == 0 or not _is_outline(labels, y, x):
                continue
            for k in range(ends[reach[label]]):
                row, column = y + offsets[k, 0], x + offsets[k, 1]
                if 0 <= row < height and 0 <= column < width:
                    _offer(first, second, near, next_near, row * width + column, label, offsets[k, 2])
    return first, second, near, next_near


@numba.njit(cache=True)
def _border(
    labels: Labels, reach: NDArray[np.int32], offsets: NDArray[np.int32], ends: NDArray[np.int64]
) -> NDArray[np.uint8]:
    first, second, near, next_near = _two_nearest(labels, reach, offsets, ends)
    out = np.zeros(labels.size, np.uint8)
    for at in range(labels.size):
        if second[at] > 0:
            limit = min(reach[first[at]], reach[second[at]])
            out[at] = max(near[at], next_near[at]) <= limit * (limit + 1)
    return out.reshape(labels.shape)
