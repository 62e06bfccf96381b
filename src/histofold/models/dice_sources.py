"""Where a predicting DiCE unit reads its channels: one tensor, or what attention gates join without writing it down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from histofold.models.dice_numbers import Array, flat, single


@dataclass(frozen=True)
class Channels:
    """The input of a unit, whose channels may be those of two tensors, some of them scaled by an attention map.

    `table` (C, 2) names for each channel the tensor, 0 or 1, and its plane; `scale` (C, 2) is the weight and the bias
    of the attention (B, 1, H, W) that multiplies it, for channels of the first tensor: 0 and 1 leave it as it is.
    """

    tensors: tuple[torch.Tensor, torch.Tensor]
    table: NDArray[np.int64]
    attention: torch.Tensor
    scale: Array

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Images, channels, rows and columns."""
        first = self.tensors[0]
        return first.shape[0], len(self.table), first.shape[2], first.shape[3]

    @property
    def sources(self) -> tuple[Array, Array, NDArray[np.int64], NDArray[np.int64], Array, Array]:
        """What the kernel takes: both tensors' planes, how many an image has, table, attention and scale."""
        first, second = self.tensors
        held = np.array([first.shape[1], second.shape[1]])
        return flat(first), flat(second), held, self.table, flat(self.attention), self.scale


def plain_channels(x: torch.Tensor) -> Channels:
    """The channels of one tensor (B, C, H, W) as they are."""
    channels = np.arange(x.shape[1])
    table = np.stack([np.zeros_like(channels), channels], -1)
    return Channels((x, x), table, torch.empty(0), single(np.tile([0.0, 1.0], (len(channels), 1))))


def gated_channels(
    skip: torch.Tensor, deep: torch.Tensor | None, attention: torch.Tensor, spread: nn.Conv2d
) -> Channels:
    """The skip's channels gated, then as they are; with `deep`, the three kinds of each channel side by side."""
    channels = np.arange(skip.shape[1])
    gates = np.stack([flat(spread.weight), flat(spread.bias)], -1)
    kinds = [gates, np.tile([0.0, 1.0], (len(channels), 1))]
    which = np.zeros((3, len(channels)), np.int64)
    if deep is None:
        return Channels((skip, skip), _beside(which[:2], channels, 0), attention, single(np.concatenate(kinds)))
    which[2] = 1
    scale = single(np.stack([*kinds, kinds[1]], 1).reshape(-1, 2))
    return Channels((skip, deep), _beside(which, channels, 1), attention, scale)


def _beside(which: NDArray[np.int64], channels: NDArray[np.int64], interleaved: int) -> NDArray[np.int64]:
    """The table of kinds (K, C) of channels, one kind behind another or side by side."""
    table = np.stack([which, np.broadcast_to(channels, which.shape)], -1)
    return np.ascontiguousarray(table.swapaxes(0, interleaved)).reshape(-1, 2)
