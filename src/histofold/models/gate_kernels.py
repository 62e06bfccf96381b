"""Numba kernel of Kidney-SegNet's attention gates on a CPU: the map of a gate without any plane in between.

The gate adds a 1 × 1 convolution of the skip to a coarser feature doubled by a transposed 3 × 3 convolution, cuts at
zero, and joins all channels to one map. A pixel of the coarser feature with its right, lower and lower right neighbour
makes two by two pixels: nine taps, and four products with the skip, for each pair of channels. A tile of sixteen such
places stays in the cache while sums of `BLOCK` channels for its four pixels each stay in registers.
"""

# Numba infers the types: flat arrays of float32, counters of int64; annotations would only repeat that.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import math

import numpy as np

from histofold.models.dice_lanes import (
    LANES,
    aligned,
    evens,
    fma,
    larger,
    load,
    odds,
    splat,
    store,
    zip_high,
    zip_low,
)
from histofold.models.dice_taps import ZERO, U, fill, inner, jit

BLOCK = 4
"""Channels that are summed up together."""

TAPS = 10
"""Weights of a pair of channels: nine taps in the order of `_places`, and the skip's."""


@inner
def _part(source, at, n, edge):
    """A vector of which only the first n values exist; zeros behind them."""
    if n >= LANES:
        return load(source, at)
    fill(edge, 0, LANES)
    for w in range(n):
        edge[U(w)] = source[U(at + w)]
    return load(edge, 0)


@inner
def _tiles(T, skip, coarse, sample, C, h, w, row, edge):
    """Fill T (tiles, C, 8, LANES): the coarse pixels here, right, below, below right, and the skip's two by two."""
    inside = row + 1 < h
    for c in range(C):
        plane = (sample * C + c) * h + row
        for column in range(0, w, LANES):
            at, left, o = plane * w + column, w - column, (column * C + c * LANES) * 8
            store(T, o, _part(coarse, at, left, edge))
            store(T, o + LANES, _part(coarse, at + 1, left - 1, edge))
            store(T, o + 2 * LANES, _part(coarse, at + w, left if inside else 0, edge))
            store(T, o + 3 * LANES, _part(coarse, at + w + 1, left - 1 if inside else 0, edge))
        for k in range(2):
            for column in range(0, w, LANES):
                at, left, o = (plane * 2 + k) * 2 * w + 2 * column, w - column, (column * C + c * LANES) * 8
                first, second = _part(skip, at, 2 * left, edge), _part(skip, at + LANES, 2 * left - LANES, edge)
                store(T, o + (4 + 2 * k) * LANES, evens(first, second))
                store(T, o + (5 + 2 * k) * LANES, odds(first, second))


@inner
def _places(sums, k, i, here, right, below, beyond, skips):
    """Add the products of one pair of channels to the sums of the pixels at even and odd rows and columns."""
    own = splat(k[i + 9])
    return (
        fma(own, skips[0], fma(splat(k[i]), here, sums[0])),
        fma(own, skips[1], fma(splat(k[i + 2]), right, fma(splat(k[i + 1]), here, sums[1]))),
        fma(own, skips[2], fma(splat(k[i + 4]), below, fma(splat(k[i + 3]), here, sums[2]))),
        fma(
            own, skips[3],
            fma(splat(k[i + 8]), beyond,
                fma(splat(k[i + 7]), below, fma(splat(k[i + 6]), right, fma(splat(k[i + 5]), here, sums[3])))),
        ),
    )  # fmt: skip


@inner
def _attended(maps, sums, weight):
    """Add weight · max(sums, 0) to the maps."""
    zero, by = splat(ZERO), splat(weight)
    return (
        fma(by, larger(sums[0], zero), maps[0]),
        fma(by, larger(sums[1], zero), maps[1]),
        fma(by, larger(sums[2], zero), maps[2]),
        fma(by, larger(sums[3], zero), maps[3]),
    )


@jit
def attention_rows(skip, coarse, n, C, h, w, first, last, weights, bias, attend, start, out):
    """Write rows 2 · first … 2 · last of the map of sample n, out (B, 2h, 2w), behind its sigmoid.

    skip is (B, C, 2h, 2w), coarse (B, C, h, w). weights (blocks, C, BLOCK, TAPS) are those of `_places`, bias and
    attend (blocks · BLOCK) begin each channel's sum and join the channels to the map, whose own bias is `start`.
    """
    tiles = (w + LANES - 1) // LANES
    T, edge, line = aligned(tiles * C * 8 * LANES), np.empty(LANES, np.float32), np.empty(2 * LANES, np.float32)
    blocks = len(bias) // BLOCK
    for row in range(first, last):
        _tiles(T, skip, coarse, n, C, h, w, row, edge)
        for column in range(0, w, LANES):
            origin = splat(start)
            maps = (origin, origin, origin, origin)
            for block in range(blocks):
                m = block * BLOCK
                b0, b1, b2, b3 = splat(bias[m]), splat(bias[m + 1]), splat(bias[m + 2]), splat(bias[m + 3])
                s0, s1, s2, s3 = (b0, b0, b0, b0), (b1, b1, b1, b1), (b2, b2, b2, b2), (b3, b3, b3, b3)
                for c in range(C):
                    o, i = (column * C + c * LANES) * 8, (block * C + c) * BLOCK * TAPS
                    here, right = load(T, o), load(T, o + LANES)
                    below, beyond = load(T, o + 2 * LANES), load(T, o + 3 * LANES)
                    skips = (
                        load(T, o + 4 * LANES), load(T, o + 5 * LANES), load(T, o + 6 * LANES), load(T, o + 7 * LANES)
                    )  # fmt: skip
                    s0 = _places(s0, weights, i, here, right, below, beyond, skips)
                    s1 = _places(s1, weights, i + TAPS, here, right, below, beyond, skips)
                    s2 = _places(s2, weights, i + 2 * TAPS, here, right, below, beyond, skips)
                    s3 = _places(s3, weights, i + 3 * TAPS, here, right, below, beyond, skips)
                maps = _attended(_attended(maps, s0, attend[m]), s1, attend[m + 1])
                maps = _attended(_attended(maps, s2, attend[m + 2]), s3, attend[m + 3])
            for k in range(2):
                even, odd = maps[2 * k], maps[2 * k + 1]
                store(line, 0, zip_low(even, odd))
                store(line, LANES, zip_high(even, odd))
                at = ((n * h + row) * 2 + k) * 2 * w + 2 * column
                for p in range(min(2 * LANES, 2 * (w - column))):
                    out[U(at + p)] = np.float32(1 / (1 + math.exp(-line[U(p)])))
