"""Numba loops that the kernels of the DiCE unit are made of: one pass over neighbouring pixels each.

Offsets are cast to unsigned, because a signed index would be tested for being negative at every pixel, which no vector
instruction does; the compiler then turns every loop here into vector instructions. It gives up where a loop has more
than eight pairs of pointers that could overlap: such loops are in `dice_strips`.
"""

# Numba infers the types: flat arrays of float32, counters of int64; annotations would only repeat that.
# ruff: noqa: ANN001, ANN201
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
