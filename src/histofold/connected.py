"""Connected parts of labels: pixels of one label that touch by an edge or a corner."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int32]
"""(H, W), 0 background."""


def parts(labels: Labels) -> tuple[Labels, Labels]:
    """Number the connected parts of all labels (H, W) int32 in the order of their first pixels; background stays 0.

    One scan for all labels, whatever their values; two labels that touch stay two parts.

    Returns:
        Parts (H, W), and the label of each part (n + 1), 0 for part 0.
    """
    return _parts(np.ascontiguousarray(labels, np.int32))


@numba.njit(nogil=True, cache=True)
def _parts(labels: Labels) -> tuple[Labels, Labels]:
    """Union-find over rows; a pixel asks its neighbours in the order that needs the fewest unions (Wu et al., 2009)."""
    height, width = labels.shape
    out = np.zeros((height, width), np.int32)
    # As many parts as pixels are possible; memory that is never touched costs nothing.
    parent = np.empty(height * width + 1, np.int32)
    owner = np.empty(height * width + 1, np.int32)
    parent[0], owner[0], count = 0, 0, 0
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            if label == 0:
                continue
            if y > 0 and labels[y - 1, x] == label:
                out[y, x] = out[y - 1, x]  # which all other neighbours touch, too
                continue
            right = out[y - 1, x + 1] if y > 0 and x + 1 < width and labels[y - 1, x + 1] == label else 0
            if x > 0 and labels[y, x - 1] == label:
                out[y, x] = out[y, x - 1]
            elif y > 0 and x > 0 and labels[y - 1, x - 1] == label:
                out[y, x] = out[y - 1, x - 1]
            elif right > 0:
                out[y, x] = right
            else:
                count += 1
                parent[count], owner[count] = count, label
                out[y, x] = count
            if right > 0 and right != out[y, x]:
                _join(parent, out[y, x], right)
    return _numbered(out, parent, owner, count)


@numba.njit(nogil=True, cache=True)
def _root(parent: Labels, part: int) -> int:
    while parent[part] != part:
        parent[part] = parent[parent[part]]
        part = parent[part]
    return part


@numba.njit(nogil=True, cache=True)
def _join(parent: Labels, one: int, other: int) -> None:
    """The lower number is the root, so that roots come before what hangs on them."""
    one, other = _root(parent, one), _root(parent, other)
    parent[max(one, other)] = min(one, other)


@numba.njit(nogil=True, cache=True)
def _numbered(out: Labels, parent: Labels, owner: Labels, count: int) -> tuple[Labels, Labels]:
    """Parts 1..n without gaps, and their labels."""
    number = np.zeros(count + 1, np.int32)
    last = 0
    for part in range(1, count + 1):
        root = _root(parent, part)
        if root == part:
            last += 1
            number[part], owner[last] = last, owner[part]
        else:
            number[part] = number[root]
    if last < count:
        flat = out.ravel()
        for at in range(flat.size):
            flat[at] = number[flat[at]]
    return out, owner[: last + 1].copy()
