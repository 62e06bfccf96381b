"""What is done to found instances: made connected, outlines smoothed, holes filled, specks dropped, renumbered."""

from __future__ import annotations

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

from histofold.connected import parts

Labels = NDArray[np.int32]
"""(H, W), 0 background, 1..n instances."""


def mend(labels: Labels, max_hole: int, smooth: int) -> Labels:
    """Part what is not connected, smooth outlines and fill holes, of labels (H, W).

    Every instance is connected afterwards, diagonal neighbours included. A core may reach over ground that is no
    foreground, flows from far apart may end together, a higher label may cut through a lower one, and smoothing may cut
    a neck: the parts are instances of their own, and those that are too small are dropped as any other.

    Args:
        labels: (H, W) int32, 0 background.
        max_hole: pixels; holes up to this size that lie within a single instance are filled; 0 fills none.
        smooth: passes of a 3×3 majority vote.
    """
    labels = apart(labels)
    for _ in range(smooth):
        labels = _majority(labels)
    labels = apart(labels) if smooth > 0 else labels
    return fill_holes(labels, max_hole) if max_hole > 0 else labels


def components(mask: NDArray[np.bool_]) -> Labels:
    """Connected components of a mask (H, W), diagonal neighbours included: int32 labels."""
    _, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    return labels


def apart(labels: Labels) -> Labels:
    """Give every connected part of a label (H, W) a number of its own; the same array where all are connected."""
    found, owner = parts(labels)
    return labels if len(np.unique(owner)) == len(owner) else found


def with_the_rest(labels: Labels, mask: NDArray[np.bool_]) -> Labels:
    """Make each connected part of the mask that has no label an instance of its own."""
    rest = components(mask & (labels == 0))
    rest[rest > 0] += int(labels.max(initial=0))
    return np.maximum(labels, rest)


def cut_below(labels: Labels, values: NDArray[np.float32], share: float) -> Labels:
    """Take from every label (H, W) the pixels whose value is below `share` of that label's highest."""
    return _cut_below(labels, values, np.float32(share))


@numba.njit(nogil=True, cache=True)
def _cut_below(labels: Labels, values: NDArray[np.float32], share: np.float32) -> Labels:
    flat, heights, out = labels.ravel(), values.ravel(), np.zeros_like(labels)
    least = np.zeros(flat.max() + 1 if flat.size else 1, np.float32)
    for at in range(flat.size):
        least[flat[at]] = max(least[flat[at]], share * heights[at])
    kept = out.ravel()
    for at in range(flat.size):
        if heights[at] >= least[flat[at]]:
            kept[at] = flat[at]
    return out


def fill_holes(labels: Labels, max_hole: int) -> Labels:
    """Give background that is enclosed by a single instance, up to `max_hole` pixels, to that instance.

    Background counts as connected by edges only: a diagonal outline closes a hole, as it connects an instance.
    """
    empty = (labels == 0).view(np.uint8)
    count, holes = cv2.connectedComponents(empty, connectivity=4, ltype=cv2.CV_32S)
    if count <= 1:
        return labels
    # OpenCV's own statistics, with their centroids, take several times as long as its labels.
    small = _areas(holes, count) <= max_hole
    small[0] = False
    return _fill(labels, holes, small) if small.any() else labels


@numba.njit(nogil=True, cache=True)
def _areas(labels: Labels, count: int) -> NDArray[np.int64]:
    """Pixels of each label below `count`; runs of a label are added at once."""
    areas = np.zeros(count, np.int64)
    flat = labels.ravel()
    start = 0
    for at in range(1, flat.size + 1):
        if at == flat.size or flat[at] != flat[start]:
            areas[flat[start]] += at - start
            start = at
    return areas


@numba.njit(nogil=True, cache=True)
def _fill(labels: Labels, holes: Labels, small: NDArray[np.bool_]) -> Labels:
    height, width = labels.shape
    owner = np.zeros(small.size, np.int32)  # 0: none seen yet; −1: open, or between two instances
    for y in range(height):
        for x in range(width):
            hole = holes[y, x]
            if hole == 0 or not small[hole] or owner[hole] == -1:
                continue
            if y == 0 or x == 0 or y == height - 1 or x == width - 1:
                owner[hole] = -1
                continue
            for around in (labels[y - 1, x], labels[y + 1, x], labels[y, x - 1], labels[y, x + 1]):
                if around > 0 and owner[hole] == 0:
                    owner[hole] = around
                elif around > 0 and owner[hole] != around:
                    owner[hole] = -1
    out = labels.copy()
    for y in range(height):
        for x in range(width):
            hole = holes[y, x]
            if hole > 0 and small[hole] and owner[hole] > 0:
                out[y, x] = owner[hole]
    return out


def renumber(labels: Labels, min_size: int = 0) -> Labels:
    """Number instances of at least `min_size` pixels 1..n in their old order; drop the others."""
    return _renumber(np.ascontiguousarray(labels), max(1, min_size))


@numba.njit(nogil=True, cache=True)
def _renumber(labels: Labels, least: int) -> Labels:
    flat = labels.ravel()
    areas = np.zeros(flat.max() + 1 if flat.size else 1, np.int32)
    for at in range(flat.size):
        areas[flat[at]] += 1
    count = 0
    areas[0] = 0
    for label in range(1, areas.size):  # areas become new numbers
        if areas[label] >= least:
            count += 1
            areas[label] = count
        else:
            areas[label] = 0
    out = np.empty(flat.size, np.int32)
    for at in range(flat.size):
        out[at] = areas[flat[at]]
    return out.reshape(labels.shape)


@numba.njit(nogil=True, cache=True)
def _majority(labels: Labels) -> Labels:
    """Each pixel takes the label that at least 5 of the 9 pixels around it have; beyond the edge counts as itself."""
    height, width = labels.shape
    out = labels.copy()
    for y in range(height):
        for x in range(width):
            here = labels[y, x]
            left, right = labels[y, max(x - 1, 0)], labels[y, min(x + 1, width - 1)]
            up, down = labels[max(y - 1, 0), x], labels[min(y + 1, height - 1), x]
            if here == left and here == right and here == up and here == down:
                continue
            for candidate in (left, right, up, down):
                if candidate != here and _votes(labels, y, x, candidate) >= 5:
                    out[y, x] = candidate
                    break
    return out


@numba.njit(nogil=True, cache=True)
def _votes(labels: Labels, y: int, x: int, candidate: int) -> int:
    height, width = labels.shape
    count = 0
    for row in range(y - 1, y + 2):
        for column in range(x - 1, x + 2):
            inside = 0 <= row < height and 0 <= column < width
            count += candidate == (labels[row, column] if inside else labels[y, x])
    return count
