"""Exact Euclidean distances inside every instance at once, in Numba."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from histofold.targets.base import Labels

UNBOUNDED = np.int32(1 << 14)
"""Distance where no pixel of another label is to be seen (larger than any crop's diagonal of interest)."""


@numba.njit(cache=True)
def instance_distance(labels: Labels) -> NDArray[np.float32]:
    """Distance of every pixel to the nearest pixel of another label, 0 on background; (H, W) float32 pixels.

    Neighbouring instances bound each other; the edge of the image bounds nothing. An instance that fills the whole
    image has no distance: 16384 stands for it.
    """
    height, width = labels.shape
    along = _along_columns(labels)
    out = np.zeros((height, width), np.float32)
    for y in range(height):
        start = 0
        while start < width:
            label = labels[y, start]
            end = start + 1
            while end < width and labels[y, end] == label:
                end += 1
            if label > 0:
                for x in range(start, end):
                    out[y, x] = np.sqrt(_nearest(along[y], x, start, end, width))
            start = end
    return out


@numba.njit(cache=True)
def _along_columns(labels: Labels) -> Labels:
    """Distance to the nearest pixel of another label in the same column."""
    height, width = labels.shape
    out = np.full((height, width), UNBOUNDED, np.int32)
    for y in range(1, height):
        for x in range(width):
            out[y, x] = min(out[y - 1, x] + 1, UNBOUNDED) if labels[y, x] == labels[y - 1, x] else 1
    for y in range(height - 2, -1, -1):
        for x in range(width):
            step = out[y + 1, x] + 1 if labels[y, x] == labels[y + 1, x] else 1
            out[y, x] = min(out[y, x], step)
    return out


@numba.njit(cache=True)
def _nearest(along: Labels, x: int, start: int, end: int, width: int) -> float:
    """Squared distance of pixel x of a row's run start..end: to the run's ends, or up and down from any of its pixels.

    The search goes outwards and stops when going further cannot help, so that it takes as many steps as the distance.
    """
    best = np.float64(along[x]) ** 2
    if start > 0:
        best = min(best, np.float64(x - start + 1) ** 2)
    if end < width:
        best = min(best, np.float64(end - x) ** 2)
    step = 1
    while step * step < best and (x - step >= start or x + step < end):
        if x - step >= start:
            best = min(best, np.float64(step) ** 2 + np.float64(along[x - step]) ** 2)
        if x + step < end:
            best = min(best, np.float64(step) ** 2 + np.float64(along[x + step]) ** 2)
        step += 1
    return best


@numba.njit(cache=True)
def normalised(labels: Labels, edge: float) -> NDArray[np.float32]:
    """Depth of every pixel in its own instance: `edge` on the outline, 1 at the deepest pixel, 0 on background.

    edge + (1 − edge) · (d − 1) / (D − 1) with d the distance to the nearest pixel outside the instance and D the
    largest d of the instance; 1 everywhere in an instance that is all outline (D = 1).
    """
    depth = instance_distance(labels)
    deepest = np.zeros(labels.max() + 1, np.float32)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            deepest[labels[y, x]] = max(deepest[labels[y, x]], depth[y, x])
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            if label > 0:
                span = deepest[label] - 1
                depth[y, x] = edge + (1 - edge) * (depth[y, x] - 1) / span if span > 0 else 1.0
    return depth
