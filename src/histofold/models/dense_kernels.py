"""Numba kernels of a prediction on a CPU between the DiCE units: 1 × 1 and 3 × 3 convolutions, and pooling.

torch's own are fast, but its threads wait for more work by spinning for some milliseconds, on cores that the threads of
the DiCE kernels need: on two cores, a fifth of a prediction. A tile of pixels with all of its inputs lies in the cache
while sums of `BLOCK` channels for its pixels stay in registers.
"""

# Numba infers the types: flat arrays of float32, counters of int64; annotations would only repeat that.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from histofold.models.dice_lanes import (
    LANES,
    aligned,
    carry,
    evens,
    fma,
    larger,
    load,
    maximum,
    odds,
    splat,
    store,
)
from histofold.models.dice_taps import U, fill, inner, jit

BLOCK = 8
"""Channels that are summed up together."""

TILE = 2 * LANES
"""Pixels that are summed up together."""

RUN, VALUES = 16, 1 << 16
"""Tiles that are read together, a channel after the other, at most, and the values they hold, at most."""


@inner
def _more(sums, weight, here, next_):
    by = splat(weight)
    return fma(by, here, sums[0]), fma(by, next_, sums[1])


@inner
def _write(Y, o, sums, low):
    store(Y, o, larger(low, sums[0]))
    store(Y, o + LANES, larger(low, sums[1]))


@inner
def _products(T, at, K, weights, block, low, Y):
    """Add to Y (BLOCK, TILE) the products of a tile T[at …] (K, TILE) with a block of weights, and cut below `low`."""
    s0, s1 = (load(Y, 0), load(Y, LANES)), (load(Y, TILE), load(Y, TILE + LANES))
    s2, s3 = (load(Y, 2 * TILE), load(Y, 2 * TILE + LANES)), (load(Y, 3 * TILE), load(Y, 3 * TILE + LANES))
    s4, s5 = (load(Y, 4 * TILE), load(Y, 4 * TILE + LANES)), (load(Y, 5 * TILE), load(Y, 5 * TILE + LANES))
    s6, s7 = (load(Y, 6 * TILE), load(Y, 6 * TILE + LANES)), (load(Y, 7 * TILE), load(Y, 7 * TILE + LANES))
    for k in range(K):
        o, i = at + k * TILE, (block * K + k) * BLOCK
        a, b = load(T, o), load(T, o + LANES)
        s0, s1 = _more(s0, weights[U(i)], a, b), _more(s1, weights[U(i + 1)], a, b)
        s2, s3 = _more(s2, weights[U(i + 2)], a, b), _more(s3, weights[U(i + 3)], a, b)
        s4, s5 = _more(s4, weights[U(i + 4)], a, b), _more(s5, weights[U(i + 5)], a, b)
        s6, s7 = _more(s6, weights[U(i + 6)], a, b), _more(s7, weights[U(i + 7)], a, b)
    least = splat(low)
    for j, sums in enumerate((s0, s1, s2, s3, s4, s5, s6, s7)):
        _write(Y, j * TILE, sums, least)


@inner
def _channels(T, tile, K, weights, bias, more, low, Y, out, at, pixels, M, n):
    """Write n pixels of all M channels from out[at …] on, from the tile T[tile …]; with `more`, onto what is there."""
    for block in range((M + BLOCK - 1) // BLOCK):
        held = min(BLOCK, M - block * BLOCK)
        for j in range(BLOCK):
            c = block * BLOCK + j
            if more and j < held:
                carry(Y, j * TILE, out, at + c * pixels, n)
            else:
                begin = splat(bias[c])
                store(Y, j * TILE, begin)
                store(Y, j * TILE + LANES, begin)
        _products(T, tile, K, weights, block, low, Y)
        for j in range(held):
            carry(out, at + (block * BLOCK + j) * pixels, Y, j * TILE, n)


@jit
def pointwise_pixels(x, n, K, M, pixels, first, last, weights, bias, more, low, out):
    """Write max(weights · x + bias, low) for pixels first … last of sample n; with `more`, add to out instead of bias.

    x is (B, K, pixels), out (B, M, pixels), weights (blocks, K, BLOCK) and bias (blocks · BLOCK) with zeros at the end.
    """
    run = max(1, min(RUN, VALUES // (K * TILE))) * TILE
    T, Y = aligned(K * run), aligned(BLOCK * TILE)
    for begin in range(first, last, run):
        end = min(begin + run, last)
        for k in range(K):
            for p in range(begin, end, TILE):
                o, count = (p - begin) * K + k * TILE, min(TILE, end - p)
                carry(T, o, x, (n * K + k) * pixels + p, count)
                fill(T, o + count, TILE - count)
        for p in range(begin, end, TILE):
            at = n * M * pixels + p
            _channels(T, (p - begin) * K, K, weights, bias, more, low, Y, out, at, pixels, M, min(TILE, end - p))


@jit
def near_rows(x, n, C, M, H, W, first, last, weights, bias, low, out):
    """Write rows first … last of max(a 3 × 3 convolution of sample n, low), with zeros around the planes.

    `weights` are (blocks, 9C, BLOCK): the inputs of a pixel come in the order channel, row, column.
    """
    K, ld = 9 * C, W + 1 + TILE
    T, Y, L = aligned(K * TILE), aligned(BLOCK * TILE), aligned(3 * C * ld)
    fill(L, 0, 3 * C * ld)
    for h in range(first, last):
        for c in range(C):
            for r in range(3):
                o, row = (3 * c + r) * ld + 1, h + r - 1
                if 0 <= row < H:
                    carry(L, o, x, ((n * C + c) * H + row) * W, W)
                else:
                    fill(L, o, W)
        for w in range(0, W, TILE):
            for k in range(K):
                o = k // 3 * ld + k % 3 + w
                store(T, k * TILE, load(L, o))
                store(T, k * TILE + LANES, load(L, o + LANES))
            _channels(T, 0, K, weights, bias, False, low, Y, out, (n * M * H + h) * W + w, H * W, M, min(TILE, W - w))


@jit
def halve_planes(x, first, last, H, W, out):
    """Write the largest of each two by two values of planes first … last, an odd last row or column dropped."""
    h, w = H // 2, W // 2
    for plane in range(first, last):
        for row in range(h):
            i, o = (plane * H + 2 * row) * W, (plane * h + row) * w
            full = w // LANES * LANES
            for k in range(0, full, LANES):
                a = maximum(load(x, i + 2 * k), load(x, i + W + 2 * k))
                b = maximum(load(x, i + 2 * k + LANES), load(x, i + W + 2 * k + LANES))
                store(out, o + k, maximum(evens(a, b), odds(a, b)))
            for k in range(full, w):
                value = x[U(i + 2 * k)]
                for other in (x[U(i + 2 * k + 1)], x[U(i + W + 2 * k)], x[U(i + W + 2 * k + 1)]):
                    value = value if value > other or value != value else other
                out[U(o + k)] = value
