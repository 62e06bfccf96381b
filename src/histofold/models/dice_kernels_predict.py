"""Numba kernels of a prediction of the DiCE unit on a CPU: from x to the projected planes in one pass over memory.

Nothing between x and the projected planes is kept: a job computes the fused planes of one group at a time on its band
of rows, in memory that the cache holds, and projects them from there. A band sees one row of fused values beyond its
own on either side, which its neighbour computes again.

Names as in `dice_kernels`. A window's rows lie `ld` apart, with zeros before, between and behind them that are at least
as wide as the dilation, and hold whole vectors: what is computed behind a row's end, and in rows beyond the band, is
nonsense that is overwritten with zeros where it would be seen. Fused rows r and r + d are computed together, because
they share most of what they read.
"""

# Numba infers the types: flat arrays of float32, counters of int64; annotations would only repeat that.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from histofold.models.dice_lanes import LANES, add, aligned, carry, fma, larger, load, mul, splat, store, total
from histofold.models.dice_strips import near, nine, plane, three
from histofold.models.dice_taps import ZERO, U, fill, inner, jit


@inner
def _constants(e):
    """The fourteen numbers of a channel that `_joined` names."""
    return (
        splat(e[0]), splat(e[1]), splat(e[2]), splat(e[3]), splat(e[4]), splat(e[5]), splat(e[6]), splat(e[7]),
        splat(e[8]), splat(e[9]), splat(e[10]), splat(e[11]), splat(e[12]), splat(e[13]),
    )  # fmt: skip


@inner
def _column(kw, i, size, upper, lower, a, b, c, e):
    """The taps of one channel in the width view of two pixels, with the values a, b, c and b, c, e."""
    k = load(kw, i)
    upper, lower = fma(k, a, upper), fma(k, b, lower)
    k = load(kw, i + 3 * size)
    upper, lower = fma(k, b, upper), fma(k, c, lower)
    k = load(kw, i + 6 * size)
    return fma(k, c, upper), fma(k, e, lower)


@inner
def _bent(j, z, straight, above, zero):
    return fma(above, larger(z, zero), fma(straight, z, j))


@inner
def _joined(z0, y1, y2, e, zero):
    """The fused value of a pixel.

    e[0] and the factor are in the channel view already; e[1 … 4] are factor and shift of the other two, e[5] the shift
    of the sum, e[6 … 11] each view's weight for every value and for what is above zero, e[12] and e[13] the sum's.
    """
    j = _bent(e[5], z0, e[6], e[7], zero)
    j = _bent(j, fma(e[1], y1, e[2]), e[8], e[9], zero)
    j = _bent(j, fma(e[3], y2, e[4]), e[10], e[11], zero)
    return fma(e[13], larger(j, zero), mul(e[12], j))


@inner
def _fused_pair(S, low, mid, high, d, R, size, kc, upper, lower, kw, e, F, o):
    """Write a fused row to F[o …] and the one d below to F[o + R …].

    low, mid and high are the places of the first pixel in the channels c - d, c and c + d of the window; `upper` and
    `lower` are the rows' height kernels.
    """
    zero = splat(ZERO)
    for i in range(0, size, LANES):
        m = mid + i
        above, here, below, last = near(S, m - R, d), near(S, m, d), near(S, m + R, d), near(S, m + 2 * R, d)
        z0, v0 = plane(e[0], kc, above, here, below), plane(e[0], kc, here, below, last)
        z1, v1 = three(zero, upper[3:6], here), three(zero, lower[3:6], below)
        z2, v2 = _column(kw, size + i, size, zero, zero, above[1], here[1], below[1], last[1])
        m = low + i
        here, below = near(S, m, d), near(S, m + R, d)
        z1, v1 = three(z1, upper[0:3], here), three(v1, lower[0:3], below)
        z2, v2 = _column(kw, i, size, z2, v2, load(S, m - R), here[1], below[1], load(S, m + 2 * R))
        m = high + i
        here, below = near(S, m, d), near(S, m + R, d)
        z1, v1 = three(z1, upper[6:9], here), three(v1, lower[6:9], below)
        z2, v2 = _column(kw, 2 * size + i, size, z2, v2, load(S, m - R), here[1], below[1], load(S, m + 2 * R))
        store(F, o + i, _joined(z0, z1, z2, e, zero))
        store(F, o + R + i, _joined(v0, v1, v2, e, zero))


@inner
def _projected_pair(F, o, ld, size, k, fresh, start, A):
    """Nine taps of one plane for two rows, onto A (2, size) or in its place."""
    for i in range(0, size, LANES):
        m = o + i
        z = start if fresh else load(A, i)
        v = start if fresh else load(A, i + size)
        above, here, below, last = near(F, m - ld, 1), near(F, m, 1), near(F, m + ld, 1), near(F, m + 2 * ld, 1)
        store(A, i, plane(z, k, above, here, below))
        store(A, i + size, plane(v, k, here, below, last))


@inner
def _scaled(to, o, source, i, n, attention, at, weight, bias):
    """Write (weight · attention + bias) · source."""
    w0, b0 = splat(weight), splat(bias)
    full = n // LANES * LANES
    for w in range(0, full, LANES):
        store(to, o + w, mul(fma(w0, load(attention, at + w), b0), load(source, i + w)))
    for w in range(full, n):
        to[U(o + w)] = (weight * attention[U(at + w)] + bias) * source[U(i + w)]


@inner
def _read(S, o, x, n, c, planes, other, table, attention, gate, H, W, top, rows, ld):
    """Rows top … of channel c into a window, zeros outside of the plane; the channel is made as `table` says."""
    which, at = table[c, 0], table[c, 1]
    source = (n * planes[which] + at) * H
    for r in range(rows):
        h = top + r
        if h < 0 or h >= H:
            fill(S, o, W)
        elif which == 1:
            carry(S, o, other, (source + h) * W, W)
        elif gate[c, 1] == 1 and gate[c, 0] == 0:
            carry(S, o, x, (source + h) * W, W)
        else:
            _scaled(S, o, x, (source + h) * W, W, attention, (n * H + h) * W, gate[c, 0], gate[c, 1])
        o += ld


@inner
def _own_sum(F, o, ld, rows, size):
    """The sum of a fused plane's rows."""
    sums = splat(ZERO)
    for r in range(rows):
        for i in range(0, size, LANES):
            sums = add(sums, load(F, o + r * ld + i))
    return total(sums)


@jit
def view_project(
    x, other, planes, table, attention, gate, n, size_of, h0, h1, g0, g1, p, q, d, kc, kh, kw, constants, kernel, shift,
    out, sums,
):  # fmt: skip
    """Write rows h0 … h1 of groups g0 … g1 of the projected planes, and add the sums of the fused ones to sums (C).

    Channel c is the plane table[c, 1] of x or, where table[c, 0] is 1, of `other`; x has planes[0] planes a sample,
    `other` planes[1]. A channel of x is multiplied by gate[c, 0] · attention + gate[c, 1], with a plane of attention a
    sample, unless that is 1. `constants` (C, 14) are those of `_joined`; the norms behind the channel view and behind
    the projection are in `kc`, in `kernel` (groups · q, p, 9) and `shift` (groups · q). kw is (9, W) with zeros to
    whole vectors.
    """
    C, H, W = size_of
    size, gap = (W + LANES - 1) // LANES * LANES, (d + LANES - 1) // LANES * LANES
    ld, first, last = size + gap, max(h0 - 1, 0), min(h1 + 1, H)
    rows = (last - first + 2 * d - 1) // (2 * d) * 2 * d
    R, each, slots = d * ld, (rows + 2 * d) * ld, 2 * d + 1
    lead, held = first - (h0 - 1), max(h1 - h0 + 4, rows + 2) * ld
    S, F, A = aligned(slots * each + 2 * gap), aligned(p * held + 2 * gap), aligned(2 * size)
    fill(S, 0, S.size)
    fill(F, 0, F.size)
    for c in range(g0 * p - d, g0 * p + d):
        if 0 <= c < C:
            at = gap + c % slots * each
            _read(S, at, x, n, c, planes, other, table, attention, gate, H, W, first - d, rows + 2 * d, ld)
    for g in range(g0, g1):
        for i in range(p):
            c = g * p + i
            low, mid, high = gap + (c - d) % slots * each, gap + c % slots * each, gap + (c + d) % slots * each
            if c + d < C:
                _read(S, high, x, n, c + d, planes, other, table, attention, gate, H, W, first - d, rows + 2 * d, ld)
            else:
                fill(S, high, each)
            o = gap + i * held + lead * ld
            own, numbers = nine(kc, 9 * c), _constants(constants[c])
            for r in range(rows // 2):
                r = r // d * 2 * d + r % d
                upper, lower = nine(kh, 9 * min(first + r, H - 1)), nine(kh, 9 * min(first + r + d, H - 1))
                w = r * ld + R
                _fused_pair(S, low + w, mid + w, high + w, d, R, size, own, upper, lower, kw, numbers, F, o + r * ld)
            fill(F, o + (last - first) * ld, ld)
            for r in range(last - first):
                fill(F, o + r * ld + W, size - W)
            sums[c] += _own_sum(F, gap + i * held + ld, ld, h1 - h0, size)
        for r in range(0, h1 - h0, 2):
            for j in range(g * q, g * q + q):
                start = splat(shift[j])
                for i in range(p):
                    at = gap + i * held + (r + 1) * ld
                    _projected_pair(F, at, ld, size, nine(kernel, (j * p + i) * 9), i == 0, start, A)
                to = ((n * (C // p * q) + j) * H + h0 + r) * W
                carry(out, to, A, 0, W)
                if h0 + r + 1 < h1:
                    carry(out, to + W, A, size, W)


@jit
def finish_planes(planes, first, last, pixels, after):
    """Change planes first … last in place to max(after[0] · z + after[1] · max(z, 0) + after[2], after[3])."""
    for index in range(first, last):
        straight, above, shift, low = after[index]
        a, b, c, e, zero = splat(straight), splat(above), splat(shift), splat(low), splat(ZERO)
        full = pixels // LANES * LANES
        o = index * pixels
        for w in range(o, o + full, LANES):
            z = load(planes, w)
            store(planes, w, larger(e, fma(b, larger(z, zero), fma(a, z, c))))
        for w in range(o + full, o + pixels):
            z = planes[U(w)]
            v = straight * z + above * max(z, ZERO) + shift
            planes[U(w)] = low if low > v else v
