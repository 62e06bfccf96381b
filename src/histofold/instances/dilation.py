"""Growing labels by a disc: what gives eroded instances their outline back."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from histofold.instances.cleanup import Labels
from histofold.registry import require


def disc_offsets(radius: int) -> NDArray[np.int64]:
    """Offsets (n, 3) dy, dx, squared length of a disc without its centre, nearest first."""
    axis = np.arange(-radius, radius + 1)
    dy, dx = (part.ravel() for part in np.meshgrid(axis, axis, indexing="ij"))
    square = dy * dy + dx * dx
    order = np.argsort(square, kind="stable")
    order = order[(square[order] <= radius * radius) & (square[order] > 0)]
    return np.stack([dy[order], dx[order], square[order]], axis=1)


def dilate(labels: Labels, radius: int, higher_wins: bool = False) -> Labels:
    """Give background within `radius` pixels of an instance to it; (H, W) int32.

    Args:
        labels: (H, W), 0 background.
        radius: of the disc, in pixels.
        higher_wins: False: the nearest instance wins, of equally near ones that with more pixels at that distance,
            and instances keep what they have. True: grey dilation, the highest label within the disc wins and takes
            pixels of its neighbours (as FullNet's authors do).

    Raises:
        ConfigError: radius out of range.
    """
    require(0 <= radius <= 32, "instances.dilation", radius, "0 to 32 pixels")
    if radius == 0:
        return labels
    kernel = _highest if higher_wins else _nearest
    return kernel(labels, disc_offsets(radius))


@numba.njit(cache=True)
def _highest(labels: Labels, offsets: NDArray[np.int64]) -> Labels:
    """Stamp a disc around every outline pixel: inside an instance nothing higher can come from itself."""
    height, width = labels.shape
    out = labels.copy()
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            if label == 0 or _surrounded(labels, y, x):
                continue
            for k in range(len(offsets)):
                row, column = y + offsets[k, 0], x + offsets[k, 1]
                if 0 <= row < height and 0 <= column < width and out[row, column] < label:
                    out[row, column] = label
    return out


@numba.njit(cache=True)
def _surrounded(labels: Labels, y: int, x: int) -> bool:
    height, width = labels.shape
    here = labels[y, x]
    return (
        (y == 0 or labels[y - 1, x] == here)
        and (y == height - 1 or labels[y + 1, x] == here)
        and (x == 0 or labels[y, x - 1] == here)
        and (x == width - 1 or labels[y, x + 1] == here)
    )


@numba.njit(cache=True)
def _nearest(labels: Labels, offsets: NDArray[np.int64]) -> Labels:
    height, width = labels.shape
    near = _reached(labels, offsets)
    out = labels.copy()
    for y in range(height):
        for x in range(width):
            if near[y, x]:
                out[y, x] = _vote(labels, offsets, y, x)
    return out


@numba.njit(cache=True)
def _reached(labels: Labels, offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Background that lies within the disc of some instance."""
    height, width = labels.shape
    near = np.zeros((height, width), np.bool_)
    for y in range(height):
        for x in range(width):
            if labels[y, x] == 0 or _surrounded(labels, y, x):
                continue
            for k in range(len(offsets)):
                row, column = y + offsets[k, 0], x + offsets[k, 1]
                if 0 <= row < height and 0 <= column < width and labels[row, column] == 0:
                    near[row, column] = True
    return near


@numba.njit(cache=True)
def _vote(labels: Labels, offsets: NDArray[np.int64], y: int, x: int) -> int:
    """Label of the nearest instance; among those equally near the one with the most pixels there, then the lowest."""
    height, width = labels.shape
    found = np.zeros(16, np.int32)
    votes = np.zeros(16, np.int32)
    kinds, nearest = 0, -1
    for k in range(len(offsets)):
        if nearest >= 0 and offsets[k, 2] > nearest:
            break
        row, column = y + offsets[k, 0], x + offsets[k, 1]
        if not (0 <= row < height and 0 <= column < width) or labels[row, column] == 0:
            continue
        nearest = offsets[k, 2]
        kinds = _count(found, votes, kinds, labels[row, column])
    best = 0
    for kind in range(1, kinds):
        more = votes[kind] > votes[best]
        if more or (votes[kind] == votes[best] and found[kind] < found[best]):
            best = kind
    return found[best]


@numba.njit(cache=True)
def _count(found: NDArray[np.int32], votes: NDArray[np.int32], kinds: int, label: int) -> int:
    for kind in range(kinds):
        if found[kind] == label:
            votes[kind] += 1
            return kinds
    if kinds < found.size:
        found[kinds], votes[kinds] = label, 1
        return kinds + 1
    return kinds
