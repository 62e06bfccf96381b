"""Numba loops that the kernels of the DiCE unit are made of: one pass over neighbouring pixels each.

Offsets are cast to unsigned, because a signed index would be tested for being negative at every pixel, which no vector
instruction does; the compiler then turns every loop here into vector instructions. It gives up where a loop has more
than eight pairs of pointers that could overlap, which is why nine taps with a kernel for each pixel are three loops.
"""

# Numba infers the types: flat arrays of float32, counters of int64; annotations would only repeat that.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

U = np.uintp
ZERO = np.float32(0)

_OPTIONS: dict[str, Any] = {"nogil": True, "cache": True}

jit = njit(**_OPTIONS, fastmath={"contract", "nsz", "arcp"})
"""Of kernels that Python calls, and of the long parts that they share."""

inner = njit(**_OPTIONS, fastmath={"contract", "nsz", "arcp"}, forceinline=True)
"""Of loops that compute each value by itself; always part of the function that calls them."""

# Such sums may be reordered, so that they become vector sums; NaN and infinity keep their meaning. They have to be
# inlined: a function that is called exists twice in the process that compiles it, once by itself and once with the
# kernel, and the linker takes the first; a process that loads the kernel from Numba's cache has the second alone. The
# two add up in different orders: a first training differed from its repetition.
summing = njit(**_OPTIONS, fastmath={"contract", "reassoc", "nsz", "arcp"}, forceinline=True)
"""Of loops that add up values over pixels."""


@inner
def copy(to, o, source, i, n):
    """Copy n values."""
    for w in range(n):
        to[U(o + w)] = source[U(i + w)]


@inner
def fill(to, o, n):
    """Write n zeros."""
    for w in range(n):
        to[U(o + w)] = ZERO


@inner
def combine(to, o, a, b, i, n, fa, fb, shift):
    """Write fa · a + fb · b + shift."""
    for w in range(n):
        to[U(o + w)] = fa * a[U(i + w)] + fb * b[U(i + w)] + shift


@inner
def prelu(to, o, source, i, n, factor, shift, slope):
    """Write PReLU(factor · source + shift)."""
    for w in range(n):
        z = factor * source[U(i + w)] + shift
        to[U(o + w)] = max(z, ZERO) + slope * min(z, ZERO)


@summing
def moments(row, o, n):
    """Sum and sum of squares."""
    first = ZERO
    second = ZERO
    for w in range(n):
        y = row[U(o + w)]
        first += y
        second += y * y
    return first, second


@inner
def add_product(acc, t, n, a, i, b, j):
    """Add a · b, value by value."""
    for w in range(n):
        acc[U(t + w)] += a[U(i + w)] * b[U(j + w)]


@summing
def nine_dots(a, i, n, S, o, R, d, to, at):
    """Add to to[at, 0 … 8] the products of a row with a window's rows at -R, 0, R and columns -d, 0, d."""
    s0, s1, s2, s3, s4, s5, s6, s7, s8 = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
    for w in range(n):
        y = a[U(i + w)]
        s0 += y * S[U(o - R - d + w)]
        s1 += y * S[U(o - R + w)]
        s2 += y * S[U(o - R + d + w)]
        s3 += y * S[U(o - d + w)]
        s4 += y * S[U(o + w)]
        s5 += y * S[U(o + d + w)]
        s6 += y * S[U(o + R - d + w)]
        s7 += y * S[U(o + R + w)]
        s8 += y * S[U(o + R + d + w)]
    for t, value in enumerate((s0, s1, s2, s3, s4, s5, s6, s7, s8)):
        to[at, t] += value


@inner
def _near(acc, n, S, o, R, k, i):
    """Nine taps of one kernel at distance 1 along the row."""
    k0, k1, k2, k3, k4, k5, k6, k7, k8 = (
        k[i], k[i + 1], k[i + 2], k[i + 3], k[i + 4], k[i + 5], k[i + 6], k[i + 7], k[i + 8],
    )  # fmt: skip
    for w in range(n):
        acc[U(w)] = (
            k0 * S[U(o - R - 1 + w)] + k1 * S[U(o - R + w)] + k2 * S[U(o - R + 1 + w)]
            + k3 * S[U(o - 1 + w)] + k4 * S[U(o + w)] + k5 * S[U(o + 1 + w)]
            + k6 * S[U(o + R - 1 + w)] + k7 * S[U(o + R + w)] + k8 * S[U(o + R + 1 + w)]
        )  # fmt: skip


@inner
def _near_more(acc, n, S, o, R, k, i):
    k0, k1, k2, k3, k4, k5, k6, k7, k8 = (
        k[i], k[i + 1], k[i + 2], k[i + 3], k[i + 4], k[i + 5], k[i + 6], k[i + 7], k[i + 8],
    )  # fmt: skip
    for w in range(n):
        acc[U(w)] += (
            k0 * S[U(o - R - 1 + w)] + k1 * S[U(o - R + w)] + k2 * S[U(o - R + 1 + w)]
            + k3 * S[U(o - 1 + w)] + k4 * S[U(o + w)] + k5 * S[U(o + 1 + w)]
            + k6 * S[U(o + R - 1 + w)] + k7 * S[U(o + R + w)] + k8 * S[U(o + R + 1 + w)]
        )  # fmt: skip


@inner
def _three(acc, n, S, o, d, k0, k1, k2):
    for w in range(n):
        acc[U(w)] += k0 * S[U(o - d + w)] + k1 * S[U(o + w)] + k2 * S[U(o + d + w)]


@inner
def nine(acc, fresh, n, S, o, R, d, k, i):
    """Nine taps with the kernel k[i … i + 8] at rows -R, 0, R and columns -d, 0, d: onto acc, or in its place."""
    if d == 1:
        if fresh:
            _near(acc, n, S, o, R, k, i)
        else:
            _near_more(acc, n, S, o, R, k, i)
        return
    if fresh:
        fill(acc, 0, n)
    _three(acc, n, S, o - R, d, k[i], k[i + 1], k[i + 2])
    _three(acc, n, S, o, d, k[i + 3], k[i + 4], k[i + 5])
    _three(acc, n, S, o + R, d, k[i + 6], k[i + 7], k[i + 8])


@inner
def _own(acc, n, S, o, d, k, i, size):
    for w in range(n):
        acc[U(w)] = (
            k[U(i + w)] * S[U(o - d + w)] + k[U(i + size + w)] * S[U(o + w)] + k[U(i + 2 * size + w)] * S[U(o + d + w)]
        )


@inner
def _own_more(acc, n, S, o, d, k, i, size):
    for w in range(n):
        acc[U(w)] += (
            k[U(i + w)] * S[U(o - d + w)] + k[U(i + size + w)] * S[U(o + w)] + k[U(i + 2 * size + w)] * S[U(o + d + w)]
        )


@inner
def nine_own(acc, fresh, n, S, o, R, d, k, i, size):
    """As `nine`, with a kernel for each pixel: tap t of the first pixel is k[i + t · size]."""
    if fresh:
        _own(acc, n, S, o - R, d, k, i, size)
    else:
        _own_more(acc, n, S, o - R, d, k, i, size)
    _own_more(acc, n, S, o, d, k, i + 3 * size, size)
    _own_more(acc, n, S, o + R, d, k, i + 6 * size, size)


@inner
def join(y0, y1, y2, n, a, b, s, f, out):
    """The three views normalised, activated and summed with their weights."""
    a0, a1, a2, b0, b1, b2 = a[0], a[1], a[2], b[0], b[1], b[2]
    s0, s1, s2, f0, f1, f2 = s[0], s[1], s[2], f[0], f[1], f[2]
    for w in range(n):
        z0 = a0 * y0[U(w)] + b0
        z1 = a1 * y1[U(w)] + b1
        z2 = a2 * y2[U(w)] + b2
        out[U(w)] = (
            f0 * (max(z0, ZERO) + s0 * min(z0, ZERO))
            + f1 * (max(z1, ZERO) + s1 * min(z1, ZERO))
            + f2 * (max(z2, ZERO) + s2 * min(z2, ZERO))
        )


@summing
def slopes(y, g, n, a, b):
    """Sums of g and of g · y where a · y + b is above zero, and where it is not."""
    gp, gn, yp, yn = ZERO, ZERO, ZERO, ZERO
    for w in range(n):
        up = a * y[U(w)] + b > ZERO
        v = g[U(w)]
        p = v if up else ZERO
        q = ZERO if up else v
        gp += p
        gn += q
        yp += p * y[U(w)]
        yn += q * y[U(w)]
    return gp, gn, yp, yn


@inner
def bend(to, o, y, g, n, a, b, down, up, own, shift):
    """The gradient of a raw view: (up or down) · g + own · y + shift, by the sign of a · y + b."""
    for w in range(n):
        z = a * y[U(w)] + b
        t = up if z > ZERO else down
        to[U(o + w)] = t * g[U(w)] + own * y[U(w)] + shift


@summing
def through_prelu(to, o, grad, i, source, j, n, a, b, s, shift):
    """Write the gradient of grad + shift before a PReLU; gives its sum, its product with source, and the slope's."""
    first, second, slope = ZERO, ZERO, ZERO
    for w in range(n):
        y = source[U(j + w)]
        z = a * y + b
        g = grad[U(i + w)] + shift
        v = g if z > ZERO else s * g
        to[U(o + w)] = v
        first += v
        second += v * y
        slope += g * min(z, ZERO)
    return first, second, slope


@inner
def finish(to, o, source, i, n, a, b, s, factor, shift, low):
    """Write max(factor · PReLU(a · source + b) + shift, low)."""
    for w in range(n):
        z = a * source[U(i + w)] + b
        to[U(o + w)] = max(factor * (max(z, ZERO) + s * min(z, ZERO)) + shift, low)
