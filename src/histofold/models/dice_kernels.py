"""Numba kernels of the DiCE unit on a CPU, first half: the three views and their fusion, for training.

Planes are flat float32 arrays in the order (B, C, H, W). A kernel works on the rows h0 … h1 of sample n, releases the
GIL, and adds its sums to its own arrays, so that any number of threads gives the same bits. Inside, a window of a few
rows of all channels is copied with zeros around it: (C + 2d, rows + 2 halo, ld). A strip is one or more whole rows of
one channel, which lie behind one another there, so that narrow planes, too, give long loops; what is computed between
rows of a strip is nonsense, and set to zero where it would count.

Names: `d` dilation; `o` offset of a strip's first pixel in a window; `R`, `P` the steps to the row and to the channel
that is d away; `ld` values of a window's row; `n` values of a strip; `kc`, `kh` kernels (C, 9) and (H, 9), flat; `kw`
kernels (9, W), flat.
"""

# Numba infers the types: flat arrays of float32, counters of int64; annotations would only repeat that.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from histofold.models.dice_lanes import LANES
from histofold.models.dice_strips import views
from histofold.models.dice_taps import (
    ZERO,
    combine,
    copy,
    fill,
    inner,
    jit,
    join,
    moments,
    slopes,
)

ROWS = 8
"""Rows of a window at least."""

COLUMNS = 512
"""Columns of a window at most."""

STRIP = 512
"""Values of a strip, about: three views of it and the kernels of its pixels stay in the first cache."""


@inner
def _rows(n):
    """Memory for n values that are computed in whole vectors."""
    return np.zeros(n + LANES, np.float32)


@jit
def _layout(W, d, halo, most):
    """Columns of a window, values of its row, rows of a strip, rows of a window."""
    tiles = (W + most - 1) // most
    columns = (W + tiles - 1) // tiles
    ld = columns + 2 * halo
    strip = max(1, STRIP // ld) if tiles == 1 else 1
    least = max(ROWS, 2 * d)
    return columns, ld, strip, strip * ((least + strip - 1) // strip)


@jit
def _window(S, x, n, C, H, W, d, h0, rows, w0, columns, halo):
    """Copy rows h0 - halo … and columns w0 - halo … zeros outside of the plane; d empty channels on either side."""
    ld = columns + 2 * halo
    low = max(0, w0 - halo)
    high = min(W, w0 + columns + halo)
    before = low - (w0 - halo)
    after = w0 + columns + halo - high
    o = d * (rows + 2 * halo) * ld
    fill(S, 0, o)
    for c in range(C):
        for r in range(rows + 2 * halo):
            h = h0 - halo + r
            if h < 0 or h >= H:
                fill(S, o, ld)
            else:
                fill(S, o, before)
                copy(S, o + before, x, ((n * C + c) * H + h) * W + low, high - low)
                fill(S, o + ld - after, after)
            o += ld
    fill(S, o, d * (rows + 2 * halo) * ld)


@jit
def _own_columns(to, kw, W, w0, columns, halo, strip, turn):
    """The width kernels (9, strip · ld) of columns w0 - halo …, once for every row of a strip; turned on demand."""
    ld = columns + 2 * halo
    for t in range(9):
        source = (8 - t if turn else t) * W
        for k in range(strip):
            for i in range(ld):
                w = w0 - halo + i
                to[(t * strip + k) * ld + i] = kw[source + w] if 0 <= w < W else ZERO


@jit
def _own_rows(to, kh, H, h0, rows, ld, turn):
    """The height kernels (9, rows · ld) of rows h0 …, once for every column; zero outside of the plane."""
    for t in range(9):
        for r in range(rows):
            h = h0 + r
            value = kh[h * 9 + (8 - t if turn else t)] if 0 <= h < H else ZERO
            to[(t * rows + r) * ld : (t * rows + r + 1) * ld] = value


@jit
def _clear(row, o, rows, ld, valid):
    """Zeros behind the `valid` first values of every row of a strip but the last."""
    for k in range(rows - 1):
        fill(row, o + k * ld + valid, ld - valid)


@jit
def view_sums(x, n, C, H, W, h0, h1, d, kc, kh, kw, sums):
    """Add sum and sum of squares of each raw view to sums (3, C, 2)."""
    width, ld, strip, height = _layout(W, d, d, COLUMNS)
    S = np.zeros((height + 2 * d) * (C + 2 * d) * ld + LANES, np.float32)
    own, tall = _rows(9 * strip * ld), _rows(9 * height * ld)
    y0, y1, y2 = _rows(strip * ld), _rows(strip * ld), _rows(strip * ld)
    for w0 in range(0, W, width):
        columns = min(width, W - w0)
        ld = columns + 2 * d
        _own_columns(own, kw, W, w0, columns, d, strip, False)
        for top in range(h0, h1, height):
            rows = min(height, h1 - top)
            R, P, size = d * ld, d * (rows + 2 * d) * ld, rows * ld if strip > 1 else 0
            _window(S, x, n, C, H, W, d, top, rows, w0, columns, d)
            if strip > 1:
                _own_rows(tall, kh, H, top, rows, ld, False)
            for c in range(C):
                for r in range(0, rows, strip):
                    m = min(strip, rows - r)
                    o = ((c + d) * (rows + 2 * d) + r + d) * ld + d
                    count = m * ld - 2 * d
                    views(
                        S, o, R, P, d, count, kc, 9 * c, kh, 9 * (top + r), tall, r * ld + d, size,
                        own, d, strip * ld, y0, y1, y2,
                    )  # fmt: skip
                    for v, y in enumerate((y0, y1, y2)):
                        _clear(y, 0, m, ld, columns)
                        first, second = moments(y, 0, count)
                        sums[v, c, 0] += first
                        sums[v, c, 1] += second


@jit
def view_join(x, n, C, H, W, h0, h1, d, kc, kh, kw, a, b, s, f, out, sums):
    """Write the fused views, and add their sums (C, 2).

    a, b, s and f (C, 3) are factor, shift, slope and weight of each view.
    """
    width, ld, strip, height = _layout(W, d, d, COLUMNS)
    S = np.zeros((height + 2 * d) * (C + 2 * d) * ld + LANES, np.float32)
    own, tall = _rows(9 * strip * ld), _rows(9 * height * ld)
    y0, y1, y2 = _rows(strip * ld), _rows(strip * ld), _rows(strip * ld)
    joined = np.empty(strip * ld, np.float32)
    for w0 in range(0, W, width):
        columns = min(width, W - w0)
        ld = columns + 2 * d
        _own_columns(own, kw, W, w0, columns, d, strip, False)
        for top in range(h0, h1, height):
            rows = min(height, h1 - top)
            R, P, size = d * ld, d * (rows + 2 * d) * ld, rows * ld if strip > 1 else 0
            _window(S, x, n, C, H, W, d, top, rows, w0, columns, d)
            if strip > 1:
                _own_rows(tall, kh, H, top, rows, ld, False)
            for c in range(C):
                for r in range(0, rows, strip):
                    m = min(strip, rows - r)
                    o = ((c + d) * (rows + 2 * d) + r + d) * ld + d
                    count = m * ld - 2 * d
                    views(
                        S, o, R, P, d, count, kc, 9 * c, kh, 9 * (top + r), tall, r * ld + d, size,
                        own, d, strip * ld, y0, y1, y2,
                    )  # fmt: skip
                    join(y0, y1, y2, count, a[c], b[c], s[c], f[c], joined)
                    _clear(joined, 0, m, ld, columns)
                    first, second = moments(joined, 0, count)
                    sums[c, 0] += first
                    sums[c, 1] += second
                    for k in range(m):
                        copy(out, ((n * C + c) * H + top + r + k) * W + w0, joined, k * ld, columns)


@jit
def view_slopes(x, dz, fused, n, C, H, W, h0, h1, d, kc, kh, kw, a, b, after, sums):
    """Backward, first pass: add the sums of `slopes` of each view to sums (3, C, 4).

    The gradient of the fused views is after[0] · dz + after[1] · fused + after[2], with after (C, 3).
    """
    width, ld, strip, height = _layout(W, d, d, COLUMNS)
    S = np.zeros((height + 2 * d) * (C + 2 * d) * ld + LANES, np.float32)
    own, tall = _rows(9 * strip * ld), _rows(9 * height * ld)
    y0, y1, y2 = _rows(strip * ld), _rows(strip * ld), _rows(strip * ld)
    for w0 in range(0, W, width):
        columns = min(width, W - w0)
        ld = columns + 2 * d
        g = np.zeros(strip * ld, np.float32)
        _own_columns(own, kw, W, w0, columns, d, strip, False)
        for top in range(h0, h1, height):
            rows = min(height, h1 - top)
            R, P, size = d * ld, d * (rows + 2 * d) * ld, rows * ld if strip > 1 else 0
            _window(S, x, n, C, H, W, d, top, rows, w0, columns, d)
            if strip > 1:
                _own_rows(tall, kh, H, top, rows, ld, False)
            for c in range(C):
                for r in range(0, rows, strip):
                    m = min(strip, rows - r)
                    o = ((c + d) * (rows + 2 * d) + r + d) * ld + d
                    count = m * ld - 2 * d
                    views(
                        S, o, R, P, d, count, kc, 9 * c, kh, 9 * (top + r), tall, r * ld + d, size,
                        own, d, strip * ld, y0, y1, y2,
                    )  # fmt: skip
                    for k in range(m):
                        i = ((n * C + c) * H + top + r + k) * W + w0
                        combine(g, k * ld, dz, fused, i, columns, after[c, 0], after[c, 1], after[c, 2])
                    for v, y in enumerate((y0, y1, y2)):
                        # Between the rows of a strip g is zero, so what is there adds nothing.
                        gp, gn, yp, yn = slopes(y, g, count, a[c, v], b[c, v])
                        sums[v, c, 0] += gp
                        sums[v, c, 1] += gn
                        sums[v, c, 2] += yp
                        sums[v, c, 3] += yn
