"""Numba kernels of the touching-border channel: which pixels lie between two objects."""

from __future__ import annotations

import math
from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

from histofold.targets.base import Labels

Flat = NDArray[np.int32]

FAR = np.int32(1 << 30)
"""Squared distance of what has not been reached."""


def touching_border(
    labels: Labels, width: float, narrowest: int, widest: int, real: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Mark the pixels whose two nearest objects are both near; (H, W) of 0 and 1.

    Args:
        labels: (H, W) int32.
        width: half-width as a share of the smaller object's equivalent radius.
        narrowest: smallest half-width in pixels.
        widest: largest half-width in pixels.
        real: (H, W), the pixels that count for an object's area; all where it is None.
    """
    reach = half_widths(labels, width, narrowest, widest, real)
    offsets, ends = discs(widest)
    # A margin of background as wide as any disc spares the inner loop its questions about the edge.
    margin = widest + 1
    framed = np.pad(labels, margin)
    steps = (offsets[:, 0] * framed.shape[1] + offsets[:, 1]).astype(np.int32)
    found = _border(framed.ravel(), reach, steps, np.ascontiguousarray(offsets[:, 2]), ends, framed.shape[1])
    return found.reshape(framed.shape)[margin:-margin, margin:-margin]


def half_widths(
    labels: Labels, width: float, narrowest: int, widest: int, real: NDArray[np.bool_] | None = None
) -> NDArray[np.int32]:
    """Border half-width in pixels of each label, index = label; from the area that is visible."""
    areas = np.bincount((labels if real is None else labels[real]).ravel(), minlength=int(labels.max(initial=0)) + 1)
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
def _surrounded(labels: Flat, at: int, width: int) -> bool:
    """Whether all four neighbours have the same label: such a pixel's disc adds nothing to its neighbours'."""
    row = labels[at - 1] == labels[at] and labels[at + 1] == labels[at]
    return row and labels[at - width] == labels[at] and labels[at + width] == labels[at]


@numba.njit(cache=True)
def _two_nearest(
    labels: Flat, reach: Flat, steps: Flat, squares: Flat, ends: NDArray[np.int64], width: int
) -> tuple[Flat, Flat, Flat]:
    """Each object's outline stamps its disc: per pixel the nearest and second nearest object other than its own.

    Gives first, second (labels, 0 for none) and the larger of the two squared distances; for a pixel of an object
    that object is first, at distance 0. Flat arrays with `width` pixels a row and a margin of background.
    """
    first = labels.copy()
    second = np.zeros(labels.size, np.int32)
    near = np.where(labels > 0, np.int32(0), FAR).astype(np.int32)
    next_near = np.full(labels.size, FAR, np.int32)
    for at in range(width, labels.size - width):
        label = labels[at]
        if label == 0 or _surrounded(labels, at, width):
            continue
        for k in range(ends[reach[label]]):
            to, square = at + steps[k], squares[k]
            if square >= next_near[to] or (first[to] == label and square >= near[to]):
                continue
            if first[to] == label:
                near[to] = square
            elif square < near[to]:
                second[to], next_near[to] = first[to], near[to]
                first[to], near[to] = label, square
            else:
                second[to], next_near[to] = label, square
    return first, second, next_near


@numba.njit(cache=True)
def _border(
    labels: Flat, reach: Flat, steps: Flat, squares: Flat, ends: NDArray[np.int64], width: int
) -> NDArray[np.uint8]:
    first, second, farther = _two_nearest(labels, reach, steps, squares, ends, width)
    out = np.zeros(labels.size, np.uint8)
    for at in range(labels.size):
        if second[at] > 0:
            limit = min(reach[first[at]], reach[second[at]])
            out[at] = farther[at] <= limit * (limit + 1)
    return out
