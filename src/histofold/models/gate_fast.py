"""The map of Kidney-SegNet's attention gates for a prediction on a CPU, from the layers' own weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from histofold.models.dice_jobs import BAND_GRAIN, each, thread_count
from histofold.models.dice_numbers import Array, flat
from histofold.models.gate_kernels import BLOCK, TAPS, attention_rows

_TAPS = ((1, 1), (1, 2), (1, 0), (2, 1), (0, 1), (2, 2), (2, 0), (0, 2), (0, 0))
"""Row and column of the transposed kernel in the order of the kernel's taps."""

ROWS = 8
"""Rows of the coarser feature for each job."""


def attention_map(
    from_skip: nn.Conv2d, up: nn.ConvTranspose2d, attend: nn.Conv2d, skip: torch.Tensor, coarse: torch.Tensor
) -> torch.Tensor:
    """Sigmoid(attend(ReLU(from_skip(skip) + up(coarse)))), (B, 1, 2h, 2w), for a coarse feature (B, C, h, w)."""
    batch, channels, h, w = coarse.shape
    weights, bias, join = _packed(from_skip, up, attend)
    out = np.empty(4 * batch * h * w, np.float32)
    planes, start = (flat(skip), flat(coarse)), np.float32(float(attend.bias))
    each(
        lambda n, row: attention_rows(
            *planes, n, channels, h, w, row, min(row + ROWS, h), weights, bias, join, start, out
        ),
        ((n, row) for n in range(batch) for row in range(0, h, ROWS)),
        thread_count(skip.numel(), BAND_GRAIN),
    )
    return torch.from_numpy(out).view(batch, 1, 2 * h, 2 * w)


def _packed(from_skip: nn.Conv2d, up: nn.ConvTranspose2d, attend: nn.Conv2d) -> tuple[Array, Array, Array]:
    """Weights (blocks, C, BLOCK, TAPS), the channels' biases and their weights in the map; blocks filled with zeros."""
    # Arranged by NumPy: a copy by torch starts its threads, which then spin beside the kernels'.
    channels = up.out_channels
    doubled = up.weight.detach().numpy()
    full = np.zeros((-(-channels // BLOCK) * BLOCK, channels, TAPS), np.float32)
    for tap, (row, column) in enumerate(_TAPS):
        full[:channels, :, tap] = doubled[:, :, row, column].T
    full[:channels, :, -1] = flat(from_skip.weight).reshape(channels, channels)
    bias, join = np.zeros(len(full), np.float32), np.zeros(len(full), np.float32)
    bias[:channels], join[:channels] = flat(up.bias) + flat(from_skip.bias), flat(attend.weight)
    packed = np.ascontiguousarray(full.reshape(-1, BLOCK, channels, TAPS).swapaxes(1, 2))
    return packed.reshape(-1), bias, join
