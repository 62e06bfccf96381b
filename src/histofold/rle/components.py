"""Connected objects and holes of a mask, found on its runs: no pixel is visited."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from histofold.rle.arrays import Ints, Longs
from histofold.rle.lines import Lines


@dataclass(frozen=True)
class Components:
    """Connected components of binary lines.

    Attributes:
        labels: for each change point the component (0, 1, …) of the run that starts there, -1 where a run ends.
        boxes: (n, 5) int64: first row, first column, height, width, area; in the order of their first pixel by rows.
    """

    labels: Ints
    boxes: Longs


@njit(nogil=True, cache=True)
def _root(parents: Ints, node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@njit(nogil=True, cache=True)
def _join(offsets: Longs, positions: Ints, values: Ints, length: int, reach: int) -> Ints:
    """Give each run the change point at which its component begins: union-find over neighbouring lines.

    `reach` is 1 when pixels that only touch at a corner are connected, else 0.
    """
    parents = np.arange(positions.size).astype(np.int32)
    for line in range(1, offsets.size - 1):
        i, i_end, j, j_end = offsets[line - 1], offsets[line], offsets[line], offsets[line + 1]
        while i < i_end and j < j_end:
            if values[i] == 0:
                i += 1
                continue
            if values[j] == 0:
                j += 1
                continue
            end_above = positions[i + 1] if i + 1 < i_end else length
            end_here = positions[j + 1] if j + 1 < j_end else length
            if positions[i] < end_here + reach and positions[j] < end_above + reach:
                one, two = _root(parents, i), _root(parents, j)
                # The earlier change point stays the root: components come out in the order of their first pixel.
                parents[max(one, two)] = min(one, two)
            if end_above < end_here:
                i += 1
            else:
                j += 1
    return parents


@njit(nogil=True, cache=True)
def _measure(offsets: Longs, positions: Ints, values: Ints, length: int, parents: Ints) -> tuple[Ints, Longs]:
    labels = np.full(positions.size, -1, np.int32)
    corners = np.zeros((positions.size, 5), np.int64)
    n = 0
    for line in range(offsets.size - 1):
        for i in range(offsets[line], offsets[line + 1]):
            if values[i] == 0:
                continue
            start = positions[i]
            end = positions[i + 1] if i + 1 < offsets[line + 1] else length
            root = _root(parents, i)
            if root == i:
                labels[i] = n
                corners[n, 0], corners[n, 1], corners[n, 3] = line, start, end
                n += 1
            label = labels[root]
            labels[i] = label
            corners[label, 1] = min(corners[label, 1], start)
            corners[label, 2] = line + 1
            corners[label, 3] = max(corners[label, 3], end)
            corners[label, 4] += end - start
    boxes = corners[:n].copy()
    boxes[:, 2] -= boxes[:, 0]
    boxes[:, 3] -= boxes[:, 1]
    return labels, boxes


def connect(lines: Lines, *, diagonal: bool) -> Components:
    """Find the components of binary lines: 8-connected when `diagonal`, else 4-connected."""
    parents = _join(*lines.arrays, lines.length, int(diagonal))
    return Components(*_measure(*lines.arrays, lines.length, parents))


def clean(lines: Lines, min_area: int = 0, max_hole: int = 0) -> Lines:
    """Drop 8-connected objects of fewer than `min_area` pixels, then fill holes of at most `max_hole` pixels.

    A hole is 4-connected background that does not reach the image's border; what was dropped belongs to it.
    """
    if min_area > 1 and lines.positions.size:
        objects = connect(lines, diagonal=True)
        lines = _without(lines, objects, objects.boxes[:, 4] < min_area)
    if max_hole > 0 and lines.positions.size:
        background = _invert(lines)
        gaps = connect(background, diagonal=False)
        y, x, height, width, area = gaps.boxes.T
        inside = (y > 0) & (x > 0) & (y + height < lines.count) & (x + width < lines.length)
        lines = _invert(_without(background, gaps, inside & (area <= max_hole)))
    return lines


def _without(lines: Lines, components: Components, drop: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Lines:
    """The lines without the runs of some components."""
    starts = components.labels >= 0
    gone = np.zeros(starts.size, bool)
    gone[starts] = drop[components.labels[starts]]
    # The end of a run directly follows its start, if the run does not reach the end of the line.
    last = np.zeros(starts.size, bool)
    last[lines.offsets[1:][lines.offsets[1:] > lines.offsets[:-1]] - 1] = True
    gone[1:] |= gone[:-1] & ~last[:-1] & ~starts[1:]
    return _select(lines, ~gone)


def _select(lines: Lines, keep: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Lines:
    kept = np.concatenate([[0], np.cumsum(keep)]).astype(np.int64)
    return Lines(lines.length, kept[lines.offsets], lines.positions[keep], lines.values[keep])


def _invert(lines: Lines) -> Lines:
    """Foreground and background exchanged: a change point at 0 is taken away where there is one, added where not."""
    filled = np.diff(lines.offsets) > 0
    begins = np.zeros(lines.count, bool)
    begins[filled] = lines.positions[lines.offsets[:-1][filled]] == 0
    kept = np.ones(lines.positions.size, bool)
    kept[lines.offsets[:-1][begins]] = False
    rest = _select(lines, kept)
    added = rest.offsets[:-1][~begins]
    return Lines(
        lines.length,
        rest.offsets + np.concatenate([[0], np.cumsum(~begins)]),
        np.insert(rest.positions, added, 0),
        np.insert(1 - rest.values, added, 1),
    )
