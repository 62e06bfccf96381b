"""From a prediction at a reduction to the full size, band by band, without a shift of half a pixel.

The centre of full-size pixel y lies at (y + ½) / scale - ½ of the reduced rows; beyond the outermost centres the edge
is repeated. Values are cut to whole codes, so that (code ≥ level) here is exactly what `rle.upsample_bands` thresholds:
a threshold tuned on histograms means the same in the submission.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from histofold.tiles.grid import rational, reduced

Rows = NDArray[np.uint8]


def upsampled(bands: Iterable[Rows], scale: float, height: int, width: int) -> Iterator[tuple[int, Rows]]:
    """Enlarge consecutive bands (h, w) of codes, bilinearly.

    Args:
        bands: rows of the reduced map from top to bottom, ceil(height / scale) in all.
        scale: the reduction that they have.
        height, width: of the full-size sample.

    Yields:
        (first full-size row, codes (h', width)), consecutive; memory is that of one band.
    """
    scale = float(rational(scale))  # the one that pixels were reduced by
    if scale == 1:
        top = 0
        for band in bands:
            yield top, band
            top += len(band)
        return
    left, share = _places(width, scale)
    rows, weights = _places(height, scale)
    kept = np.zeros((0, 0), np.uint8)
    first = seen = done = 0
    total = reduced(height, scale)
    for band in bands:
        kept = np.vstack([kept, band]) if kept.size else band
        seen += len(band)
        # A full-size row is ready when the reduced row below it has come, or there is none.
        ready = height if seen >= total else int(np.searchsorted(rows + 1, seen, side="left"))
        if ready > done:
            out = np.empty((ready - done, width), np.uint8)
            _blend(kept, rows[done:ready] - first, weights[done:ready], left, share, out)
            yield done, out
            done = ready
            keep_from = int(rows[done]) if done < height else seen
            kept, first = kept[keep_from - first :].copy(), keep_from


def full_size(labels: NDArray[Any], scale: float, height: int, width: int) -> NDArray[Any]:
    """Enlarge a label image to (height, width) by nearest neighbour: every reduced pixel becomes its cell."""
    scale = float(rational(scale))
    if scale == 1:
        return labels
    rows = np.minimum(((np.arange(height) + 0.5) / scale).astype(np.int64), labels.shape[0] - 1)
    columns = np.minimum(((np.arange(width) + 0.5) / scale).astype(np.int64), labels.shape[1] - 1)
    return labels[np.ix_(rows, columns)]


def reduced_labels(labels: NDArray[Any], scale: float) -> NDArray[Any]:
    """Reduce a label image by taking the pixel in the middle of each cell; the size is ceil(size / scale)."""
    scale = float(rational(scale))
    if scale == 1:
        return labels
    rows, columns = (
        np.minimum(((np.arange(reduced(length, scale)) + 0.5) * scale).astype(np.int64), length - 1)
        for length in labels.shape
    )
    return labels[np.ix_(rows, columns)]


def _places(length: int, scale: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each full-size pixel the reduced pixel before it, and the share of the one after."""
    centres = (np.arange(length) + 0.5) / scale - 0.5
    last = reduced(length, scale) - 1
    centres = np.clip(centres, 0, last)
    before = np.minimum(centres.astype(np.int64), max(0, int(last) - 1))
    return before, (centres - before).astype(np.float32)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _blend(kept: Any, rows: Any, weights: Any, left: Any, share: Any, out: Any) -> None:
    bottom, right = kept.shape[0] - 1, kept.shape[1] - 1
    line = np.empty(kept.shape[1], np.float32)
    for y in range(out.shape[0]):
        above, below, down = kept[rows[y]], kept[min(rows[y] + 1, bottom)], weights[y]
        for x in range(line.size):
            line[x] = np.float32(above[x]) + down * (np.float32(below[x]) - np.float32(above[x]))
        for x in range(out.shape[1]):
            a = line[left[x]]
            b = line[min(left[x] + 1, right)]
            out[y, x] = np.uint8(a + share[x] * (b - a))
