"""Vector loops over strips of pixels in the windows of the DiCE unit's kernels: views, convolutions, gradients.

A strip of n pixels is computed in whole vectors, so that up to fifteen values behind its end are read, and written
where the result is a strip's own row: windows and rows are `LANES` values longer than what they hold, and what is
summed is cut at the end. Names as in `dice_kernels`.
"""

# Numba infers the types: flat arrays of float32, counters of int64; annotations would only repeat that.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from histofold.models.dice_lanes import LANES, fma, kept, load, splat, store, total
from histofold.models.dice_taps import ZERO, inner


@inner
def nine(k, i):
    """The kernel k[i … i + 8], each tap in every place."""
    return (
        splat(k[i]), splat(k[i + 1]), splat(k[i + 2]), splat(k[i + 3]), splat(k[i + 4]), splat(k[i + 5]),
        splat(k[i + 6]), splat(k[i + 7]), splat(k[i + 8]),
    )  # fmt: skip


@inner
def near(S, o, d):
    """Three vectors d apart."""
    return load(S, o - d), load(S, o), load(S, o + d)


@inner
def three(z, k, v):
    """Add three taps to z."""
    return fma(k[2], v[2], fma(k[1], v[1], fma(k[0], v[0], z)))


@inner
def plane(z, k, above, here, below):
    """Add the nine taps of a kernel to z."""
    return three(three(three(z, k[0:3], above), k[3:6], here), k[6:9], below)


@inner
def own(z, k, i, size, above, here, below):
    """Add nine taps to z with a kernel for each pixel: tap t of the first pixel is k[i + t · size]."""
    z = three(z, (load(k, i), load(k, i + size), load(k, i + 2 * size)), above)
    z = three(z, (load(k, i + 3 * size), load(k, i + 4 * size), load(k, i + 5 * size)), here)
    return three(z, (load(k, i + 6 * size), load(k, i + 7 * size), load(k, i + 8 * size)), below)


@inner
def views(S, o, R, P, d, n, kc, c9, kh, h9, rows, i, size, kw, k, ksize, y0, y1, y2):
    """The raw channel, height and width view of a strip.

    With `size` 0 the strip is a row and its height kernel is kh[h9 …]; else each value has its own, rows[i + t · size].
    """
    zero, channel, row = splat(ZERO), nine(kc, c9), nine(kh, h9)
    for w in range(0, n, LANES):
        m = o + w
        above, here, below = near(S, m - R, d), near(S, m, d), near(S, m + R, d)
        store(y0, w, plane(zero, channel, above, here, below))
        left, right = near(S, m - P, d), near(S, m + P, d)
        if size == 0:
            store(y1, w, plane(zero, row, left, here, right))
        else:
            store(y1, w, own(zero, rows, i + w, size, left, here, right))
        store(y2, w, own(zero, kw, k + w, ksize, near(S, m - R, P), near(S, m, P), near(S, m + R, P)))


@inner
def views_back(D0, D1, D2, o, R, P, d, n, kc, c9, kh, h9, rows, i, size, kw, k, ksize, y):
    """The gradient of a strip of the input from those of its three views; the kernels are turned."""
    zero, channel, row = splat(ZERO), nine(kc, c9), nine(kh, h9)
    for w in range(0, n, LANES):
        m = o + w
        z = plane(zero, channel, near(D0, m - R, d), near(D0, m, d), near(D0, m + R, d))
        left, here, right = near(D1, m - P, d), near(D1, m, d), near(D1, m + P, d)
        z = plane(z, row, left, here, right) if size == 0 else own(z, rows, i + w, size, left, here, right)
        store(y, w, own(z, kw, k + w, ksize, near(D2, m - R, P), near(D2, m, P), near(D2, m + R, P)))


@inner
def convolve(acc, fresh, n, S, o, R, k, i):
    """Nine taps with the kernel k[i … i + 8] at rows -R, 0, R: onto acc, or in its place."""
    taps, zero = nine(k, i), splat(ZERO)
    for w in range(0, n, LANES):
        m = o + w
        z = zero if fresh else load(acc, w)
        store(acc, w, plane(z, taps, near(S, m - R, 1), near(S, m, 1), near(S, m + R, 1)))


@inner
def _three_products(sums, y, v):
    return fma(y, v[0], sums[0]), fma(y, v[1], sums[1]), fma(y, v[2], sums[2])


@inner
def nine_dots(a, i, n, S, o, R, d, to, at):
    """Add to to[at, 0 … 8] the products of a row with a window's rows at -R, 0, R and columns -d, 0, d."""
    zero = splat(ZERO)
    above, here, below = (zero, zero, zero), (zero, zero, zero), (zero, zero, zero)
    for w in range(0, n, LANES):
        m, y = o + w, kept(load(a, i + w), n - w)
        above = _three_products(above, y, near(S, m - R, d))
        here = _three_products(here, y, near(S, m, d))
        below = _three_products(below, y, near(S, m + R, d))
    for row, sums in enumerate((above, here, below)):
        for column, one in enumerate(sums):
            to[at, 3 * row + column] += total(one)


@inner
def _add_products(acc, i, size, y, v):
    store(acc, i, fma(y, v[0], load(acc, i)))
    store(acc, i + size, fma(y, v[1], load(acc, i + size)))
    store(acc, i + 2 * size, fma(y, v[2], load(acc, i + 2 * size)))


@inner
def nine_products(acc, at, size, n, D, S, o, R, d):
    """Add the products of a strip with its nine neighbours, each to its own row of acc."""
    for w in range(0, n, LANES):
        m, y = o + w, kept(load(D, o + w), n - w)
        _add_products(acc, at + w, size, y, near(S, m - R, d))
        _add_products(acc, at + w + 3 * size, size, y, near(S, m, d))
        _add_products(acc, at + w + 6 * size, size, y, near(S, m + R, d))
