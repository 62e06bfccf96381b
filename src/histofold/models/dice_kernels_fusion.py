"""Numba kernels of the DiCE unit on a CPU, second half, for training: the grouped projection, gate, norm and ReLU.

Names as in `dice_kernels`; a group of the projection has `p` input and `q` output channels, and its window is
(channels, rows + 2, W + 2), so that all rows of a window are one strip.
"""

# Numba infers the types: flat arrays of float32, counters of int64; annotations would only repeat that.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from histofold.models.dice_kernels import _clear, _rows
from histofold.models.dice_strips import convolve, nine_dots
from histofold.models.dice_taps import (
    ZERO,
    U,
    combine,
    copy,
    fill,
    finish,
    jit,
    moments,
    prelu,
    summing,
    through_prelu,
)

VALUES = 4096
"""Values of a strip, about."""

CHUNK = 4096
"""Pixels summed in float32 before the sum goes on in float64."""


@jit
def _padded(F, at, source, plane, H, W, top, rows, before, c):
    """Rows top - 1 … of a plane with zeros around it, normalised and activated by `before` (C, 3)."""
    ld = W + 2
    for r in range(rows + 2):
        h = top - 1 + r
        if h < 0 or h >= H:
            fill(F, at, ld)
        else:
            F[at] = ZERO
            F[at + W + 1] = ZERO
            prelu(F, at + 1, source, (plane * H + h) * W, W, before[c, 0], before[c, 1], before[c, 2])
        at += ld


@jit
def project(fused, n, groups, p, q, H, W, h0, h1, before, kernel, out, total, sums):
    """Grouped 3 × 3 convolution of activated planes; adds to total (C) and sums (groups · q, 2).

    `before` (C, 3) normalises and activates the input while it is read.
    """
    ld = W + 2
    height = max(1, min(h1 - h0, VALUES // ld))
    F = _rows((height + 2) * p * ld)
    acc = _rows(height * ld)
    for g in range(groups):
        for top in range(h0, h1, height):
            rows = min(height, h1 - top)
            count = rows * ld - 2
            for i in range(p):
                c = g * p + i
                at = i * (rows + 2) * ld
                _padded(F, at, fused, n * groups * p + c, H, W, top, rows, before, c)
                total[c] += moments(F, at + ld, rows * ld)[0]
            for j in range(q):
                c = g * q + j
                for i in range(p):
                    convolve(acc, i == 0, count, F, (i * (rows + 2) + 1) * ld + 1, ld, kernel, (c * p + i) * 9)
                to = ((n * groups * q + c) * H + top) * W
                _clear(acc, 0, rows, ld, W)
                first, second = moments(acc, 0, count)
                sums[c, 0] += first
                sums[c, 1] += second
                for r in range(rows):
                    copy(out, to + r * W, acc, r * ld, W)


@jit
def project_gradients(
    dz, projected, fused, n, groups, p, q, H, W, h0, h1, before, kernel, after, shift, out, sums, dkernel
):  # fmt: skip
    """Backward of `project`: write the gradient before the PReLU of the fused planes, add to sums (C, 3), dkernel.

    The gradient of the projected planes is after[0] · dz + after[1] · projected + after[2], with after (groups · q, 3);
    `shift` (B, C) is what the gate's global mean sends back to every pixel; dkernel is (groups · q · p, 9).
    """
    ld = W + 2
    height = max(1, min(h1 - h0, VALUES // ld))
    F, D = _rows((height + 2) * p * ld), _rows((height + 2) * q * ld)
    acc = _rows(height * ld)
    turned = kernel.reshape(-1, 9)[:, ::-1].copy().reshape(-1)
    for g in range(groups):
        for top in range(h0, h1, height):
            rows = min(height, h1 - top)
            count = rows * ld - 2
            size = (rows + 2) * ld
            for i in range(p):
                _padded(F, i * size, fused, n * groups * p + g * p + i, H, W, top, rows, before, g * p + i)
            for j in range(q):
                _combined(D, j * size, dz, projected, n * groups * q + g * q + j, H, W, top, rows, after[g * q + j])
            for i in range(p):
                c = g * p + i
                for j in range(q):
                    k = (g * q + j) * p + i
                    convolve(acc, j == 0, count, D, j * size + ld + 1, ld, turned, 9 * k)
                    nine_dots(D, j * size + ld + 1, count, F, i * size + ld + 1, ld, 1, dkernel, k)
                e = before[c]
                for r in range(rows):
                    to = ((n * groups * p + c) * H + top + r) * W
                    first, second, slope = through_prelu(
                        out, to, acc, r * ld, fused, to, W, e[0], e[1], e[2], shift[n, c]
                    )
                    sums[c, 0] += first
                    sums[c, 1] += second
                    sums[c, 2] += slope


@jit
def _combined(D, at, dz, projected, plane, H, W, top, rows, e):
    """Rows top - 1 … of the gradient of a projected plane with zeros around it."""
    ld = W + 2
    for r in range(rows + 2):
        h = top - 1 + r
        if h < 0 or h >= H:
            fill(D, at, ld)
        else:
            D[at] = ZERO
            D[at + W + 1] = ZERO
            combine(D, at + 1, dz, projected, (plane * H + h) * W, W, e[0], e[1], e[2])
        at += ld


@jit
def scaled_sums(projected, plane, c, pixels, act, gate, sums):
    """Add sum and sum of squares of gate · PReLU of one plane to sums (C', 2); `act` (C', 3), `gate` (planes)."""
    for i in range(0, pixels, CHUNK):
        first, second = _scaled_moments(
            projected, plane * pixels + i, min(CHUNK, pixels - i), act[c, 0], act[c, 1], act[c, 2], gate[plane]
        )
        sums[c, 0] += first
        sums[c, 1] += second


@summing
def _scaled_moments(source, i, n, a, b, s, gate):
    first, second = ZERO, ZERO
    for w in range(n):
        z = a * source[U(i + w)] + b
        u = gate * (max(z, ZERO) + s * min(z, ZERO))
        first += u
        second += u * u
    return first, second


@jit
def scaled_write(projected, plane, c, pixels, act, gate, after, out):
    """Write max(after[0] · gate · PReLU + after[1], after[2]) of one plane, with after (C', 3)."""
    e = after[c]
    finish(
        out, plane * pixels, projected, plane * pixels, pixels,
        act[c, 0], act[c, 1], act[c, 2], e[0] * gate[plane], e[1], e[2],
    )  # fmt: skip


@summing
def _norm_row(grad, source, i, n, a, b, s, gate, factor, shift):
    first, second = ZERO, ZERO
    for w in range(n):
        z = a * source[U(i + w)] + b
        u = gate * (max(z, ZERO) + s * min(z, ZERO))
        v = grad[U(i + w)] if factor * u + shift > ZERO else ZERO
        first += v
        second += v * u
    return first, second


@jit
def norm_sums(grad, projected, plane, c, pixels, act, gate, after, sums):
    """Backward of norm and ReLU: add the sums of dv and dv · u to sums (C', 2), dv is the gradient after the norm."""
    for i in range(0, pixels, CHUNK):
        first, second = _norm_row(
            grad, projected, plane * pixels + i, min(CHUNK, pixels - i),
            act[c, 0], act[c, 1], act[c, 2], gate[plane], after[c, 0], after[c, 1],
        )  # fmt: skip
        sums[c, 0] += first
        sums[c, 1] += second


@summing
def _gate_row(out, grad, source, i, n, a, b, s, gate, factor, shift, low, ga, gu, g1):
    first, second, slope, opened = ZERO, ZERO, ZERO, ZERO
    for w in range(n):
        y = source[U(i + w)]
        z = a * y + b
        t = max(z, ZERO) + s * min(z, ZERO)
        u = gate * t
        v = grad[U(i + w)] if factor * u + shift > low else ZERO
        du = ga * v + gu * u + g1
        opened += du * t
        e = du * gate
        dz = e if z > ZERO else s * e
        slope += e * min(z, ZERO)
        out[U(i + w)] = dz
        first += dz
        second += dz * y
    return first, second, slope, opened


@jit
def gate_gradients(grad, projected, plane, c, pixels, act, gate, after, back, out, sums, dgate):
    """Backward of norm, ReLU, gate and PReLU: write dz, add its sum, its sum with the source and the slope's gradient.

    `sums` is (C', 3), `dgate` (planes). The gradient of u = gate · PReLU is
    back[0] · dv + back[1] · u + back[2], with back (C', 3).
    """
    e, f = after[c], back[c]
    for i in range(0, pixels, CHUNK):
        first, second, slope, opened = _gate_row(
            out, grad, projected, plane * pixels + i, min(CHUNK, pixels - i), act[c, 0], act[c, 1], act[c, 2],
            gate[plane], e[0], e[1], e[2], f[0], f[1], f[2],
        )  # fmt: skip
        sums[c, 0] += first
        sums[c, 1] += second
        sums[c, 2] += slope
        dgate[plane] += opened
