"""Numba kernel of the DiCE unit on a CPU: from the gradient of the fused views to those of the input and the kernels.

Names as in `dice_kernels`.
"""

# Numba infers the types: flat arrays of float32, counters of int64; annotations would only repeat that.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from histofold.models.dice_kernels import _clear, _layout, _own_columns, _own_rows, _rows, _window
from histofold.models.dice_strips import nine_dots, nine_products, views, views_back
from histofold.models.dice_taps import (
    bend,
    combine,
    copy,
    fill,
    jit,
    summing,
)

COLUMNS = 256
"""Columns of a window at most; four windows have to share the cache here."""


@jit
def _bent(
    S, D0, D1, D2, x_shape, top, rows, w0, ld, d, strip, dz, fused, kc, kh, tall, own, a, b, after, bends, y0, y1, y2, g
):  # fmt: skip
    """Fill the windows D0, D1, D2 with the gradients of the raw views on the rows and columns up to d beyond."""
    n, C, H, W = x_shape
    columns = ld - 4 * d
    height = rows + 4 * d
    low, high = max(0, w0 - d), min(W, w0 + columns + d)
    skip, valid = low - (w0 - d), high - low
    first, last = max(top - d, 0), min(top + rows + d, H)
    R, P, size = d * ld, d * height * ld, (rows + 2 * d) * ld if strip > 1 else 0
    for c in range(C):
        base = (c + d) * height * ld
        for h in range(top - d, top + rows + d):
            if h < first or h >= last:
                at = base + (h - top + 2 * d) * ld
                fill(D0, at, ld)
                fill(D1, at, ld)
                fill(D2, at, ld)
        for h in range(first, last, strip):
            m = min(strip, last - h)
            r = h - top + 2 * d
            o = base + r * ld + d + skip
            count = (m - 1) * ld + valid
            views(
                S, o, R, P, d, count, kc, 9 * c, kh, 9 * h, tall, (r - d) * ld + d + skip, size,
                own, d + skip, strip * ld, y0, y1, y2,
            )  # fmt: skip
            for k in range(m):
                i = ((n * C + c) * H + h + k) * W + low
                combine(g, k * ld, dz, fused, i, valid, after[c, 0], after[c, 1], after[c, 2])
            e = bends[c]
            for v, (D, y) in enumerate(((D0, y0), (D1, y1), (D2, y2))):
                bend(D, o, y, g, count, a[c, v], b[c, v], e[v, 0], e[v, 1], e[v, 2], e[v, 3])
                # The zeros between two rows are the border that the input's gradient sees.
                fill(D, o - d - skip, d + skip)
                _clear(D, o, m, ld, valid)
                end = o + (m - 1) * ld + valid
                fill(D, end, base + (r + m) * ld - end)


@jit
def view_gradients(  # noqa: C901  (one pass over a window of rows, in the order of its steps)
    x, dz, fused, n, C, H, W, h0, h1, d, kc, kh, kw, a, b, after, bends, dx, dkc, dkh, dkw
):
    """Backward, second pass: write dx, and add the kernels' gradients to dkc (C, 9), dkh (H, 9) and dkw (9, W).

    `bends` (C, 3, 4) is down, up, own and shift of `bend` for each view. The views' gradients are computed in windows
    with a border of d, so that dx sees its neighbours without another plane in memory.
    """
    width, ld, strip, height = _layout(W, d, 2 * d, COLUMNS)
    total = (height + 4 * d) * (C + 2 * d) * ld
    S, D0, D1, D2 = (
        _rows(total), _rows(total), _rows(total), _rows(total)
    )  # fmt: skip
    own, turned = _rows(9 * strip * ld), _rows(9 * strip * ld)
    tall, tall_turned = _rows(9 * (height + 2 * d) * ld), _rows(9 * height * ld)
    y0, y1, y2 = _rows(strip * ld), _rows(strip * ld), _rows(strip * ld)
    sums_w, sums_h = _rows(9 * strip * ld), _rows(9 * height * ld)
    kct, kht = kc.reshape(-1, 9)[:, ::-1].copy().reshape(-1), kh.reshape(-1, 9)[:, ::-1].copy().reshape(-1)
    for w0 in range(0, W, width):
        columns = min(width, W - w0)
        ld = columns + 4 * d
        g = np.zeros(strip * ld, np.float32)
        _own_columns(own, kw, W, w0, columns, 2 * d, strip, False)
        _own_columns(turned, kw, W, w0, columns, 2 * d, strip, True)
        sums_w[:] = np.float32(0)
        for top in range(h0, h1, height):
            rows = min(height, h1 - top)
            R, P, size = d * ld, d * (rows + 4 * d) * ld, rows * ld
            _window(S, x, n, C, H, W, d, top, rows, w0, columns, 2 * d)
            if strip > 1:
                _own_rows(tall, kh, H, top - d, rows + 2 * d, ld, False)
                _own_rows(tall_turned, kh, H, top, rows, ld, True)
                sums_h[:] = np.float32(0)
            for D in (D0, D1, D2):
                fill(D, 0, d * (rows + 4 * d) * ld)
                fill(D, (C + d) * (rows + 4 * d) * ld, d * (rows + 4 * d) * ld)
            _bent(
                S, D0, D1, D2, (n, C, H, W), top, rows, w0, ld, d, strip, dz, fused, kc, kh, tall, own, a, b, after,
                bends, y0, y1, y2, g,
            )  # fmt: skip
            for c in range(C):
                for r in range(0, rows, strip):
                    m = min(strip, rows - r)
                    o = ((c + d) * (rows + 4 * d) + r + 2 * d) * ld + 2 * d
                    count = m * ld - 4 * d
                    views_back(
                        D0, D1, D2, o, R, P, d, count, kct, 9 * c, kht, 9 * (top + r), tall_turned, r * ld + 2 * d,
                        size if strip > 1 else 0, turned, 2 * d, strip * ld, y0,
                    )  # fmt: skip
                    nine_dots(D0, o, count, S, o, R, d, dkc, c)
                    if strip == 1:
                        nine_dots(D1, o, count, S, o, P, d, dkh, top + r)
                    else:
                        nine_products(sums_h, r * ld, size, count, D1, S, o, P, d)
                    nine_products(sums_w, 0, strip * ld, count, D2, S, o, R, P)
                    for k in range(m):
                        copy(dx, ((n * C + c) * H + top + r + k) * W + w0, y0, k * ld, columns)
            if strip > 1:
                _add_rows(dkh, sums_h, top, rows, ld, columns)
        for t in range(9):
            for k in range(strip):
                for w in range(columns):
                    dkw[t, w0 + w] += sums_w[(t * strip + k) * ld + w]


@summing
def _add_rows(dkh, sums, top, rows, ld, columns):
    """Add the sums (9, rows · ld) over the columns of each row to dkh (H, 9)."""
    for t in range(9):
        for r in range(rows):
            total = 0.0
            for w in range(columns):
                total += sums[(t * rows + r) * ld + w]
            dkh[top + r, t] += total
