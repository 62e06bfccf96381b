"""What lies between the DiCE units of a prediction on a CPU, computed on their threads: convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from histofold.models import dense_kernels as kernels
from histofold.models.dice_jobs import BAND_GRAIN, each, thread_count
from histofold.models.dice_numbers import Array, flat

PIXELS, ROWS, JOBS = 1 << 12, 32, 16
"""Pixels of a job of 1 × 1 convolutions, rows of one of 3 × 3, and jobs that pooling is cut into."""

NO_FLOOR = np.float32(-np.inf)


def pointwise(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """A 1 × 1 convolution with a bias: (B, K, H, W) to (B, M, H, W)."""
    return joined(conv, [x], None)


def joined(conv: nn.Conv2d, parts: Sequence[torch.Tensor], constant: torch.Tensor | None) -> torch.Tensor:
    """A 1 × 1 convolution of parts (B, K, H, W) that lie behind one another, with `constant` (B, K) behind them.

    `constant` is a part whose planes hold one value each.
    """
    batch, _, height, width = parts[0].shape
    weight, pixels = flat(conv.weight).reshape(conv.out_channels, -1), height * width
    bias = np.tile(flat(conv.bias), (batch, 1))
    if constant is not None:
        # Not as a matrix product, whose library has threads of its own.
        bias += np.einsum("bk,mk->bm", constant.numpy(), weight[:, -constant.shape[1] :])
    out = np.empty(batch * conv.out_channels * pixels, np.float32)
    first = 0
    for number, part in enumerate(parts):
        last = first + part.shape[1]
        numbers, begin = _packed(weight[:, first:last]), _filled(bias)
        planes, shape = flat(part), (last - first, conv.out_channels, pixels)
        each(
            lambda n, p, planes=planes, shape=shape, numbers=numbers, begin=begin, more=number > 0: (
                kernels.pointwise_pixels(
                    planes, n, *shape, p, min(p + PIXELS, pixels), numbers, begin[n], more, NO_FLOOR, out
                )
            ),
            ((n, p) for n in range(batch) for p in range(0, pixels, PIXELS)),
            thread_count(part.numel(), BAND_GRAIN),
        )
        first = last
    return torch.from_numpy(out).view(batch, conv.out_channels, height, width)


def near_relu(weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """ReLU of a 3 × 3 convolution (M, C, 3, 3) with zeros around x (B, C, H, W); for few input channels."""
    batch, channels, height, width = x.shape
    made, begin = len(weight), _filled(flat(bias)[None])[0]
    numbers = _packed(flat(weight).reshape(made, -1))
    planes, out = flat(x), np.empty(batch * made * height * width, np.float32)
    each(
        lambda n, row: kernels.near_rows(
            planes, n, channels, made, height, width, row, min(row + ROWS, height), numbers, begin, np.float32(0), out
        ),
        ((n, row) for n in range(batch) for row in range(0, height, ROWS)),
        thread_count(out.size, BAND_GRAIN),
    )
    return torch.from_numpy(out).view(batch, made, height, width)


def halved(x: torch.Tensor) -> torch.Tensor:
    """2 × 2 max-pooling of (B, C, H, W), an odd last row or column dropped."""
    height, width = x.shape[2:]
    count, planes = x.shape[0] * x.shape[1], flat(x)
    out, step = np.empty(count * (height // 2) * (width // 2), np.float32), -(-count // JOBS)
    each(
        lambda first: kernels.halve_planes(planes, first, min(first + step, count), height, width, out),
        ((first,) for first in range(0, count, step)),
        thread_count(x.numel(), BAND_GRAIN),
    )
    return torch.from_numpy(out).view(*x.shape[:2], height // 2, width // 2)


def means(x: torch.Tensor) -> torch.Tensor:
    """The mean of every plane: (B, C)."""
    return torch.from_numpy(flat(x).reshape(x.shape[0], x.shape[1], -1).mean(-1))


def _packed(weight: Array) -> Array:
    """Weights (M, K) as (blocks, K, BLOCK), flat, zeros at the end."""
    full = np.pad(weight, ((0, -len(weight) % kernels.BLOCK), (0, 0)))
    packed = np.ascontiguousarray(full.reshape(-1, kernels.BLOCK, weight.shape[1]).swapaxes(1, 2))
    return packed.reshape(-1)


def _filled(bias: Array) -> Array:
    """Biases (B, M) with zeros to whole blocks."""
    return np.pad(bias, ((0, 0), (0, -bias.shape[1] % kernels.BLOCK)))
