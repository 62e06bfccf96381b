"""FullNet: dense blocks of dilated convolutions at full resolution, for nuclei and glands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from histofold.models.blocks import check_at_least, check_choice

NOMINAL = (1, 2, 4, 8, 16, 4, 1)
"""Dilation of each block."""

HYBRID: dict[int, tuple[int, ...]] = {
    1: (1, 1, 1, 1, 1, 1),
    2: (1, 2, 3, 1, 2, 3),
    4: (1, 2, 3, 5, 6, 7),
    8: (2, 5, 7, 9, 11, 14),
    16: (10, 13, 16, 17, 19, 21),
}
"""Dilations of a block's six layers; each list sums to six times the nominal one, and so keeps the receptive field."""


class FullNet(nn.Module):
    """FullNet (Qu, Yan, Riedlinger, De, Metaxas, MICCAI 2019, "Improving nuclei/gland instance segmentation …").

    Input (B, 3, H, W), output raw (B, outputs, H, W). Nothing is pooled: seven dense blocks of six dilated layers with
    24 new maps each (`growth`), a 1 × 1 transition to half the channels behind every block, and a 3 × 3 head. With
    three outputs there are 1,780,233 parameters, 1.776 MMAC a pixel (116.42 GMAC at 256 × 256), and an output sees
    437 × 437 pixels. A unit is convolution, LeakyReLU, BatchNorm, in this order.

    Options:
        growth: new maps of a layer; stem and channel chain follow from it (24: 24/84/114/129/136/140/142/143).
        layers: `basic` (one 3 × 3) or `bottleneck` (a 1 × 1 to four times `growth` before it).
        hybrid: dilations that differ inside a block, which avoids gridding; the receptive field is the same.
        pooling: the paper's ablation: 2 × 2 max-pooling behind blocks 1 to 4, four-fold bilinear behind 5 and 6.
        dropout: share of maps' values dropped behind each layer in training.
        checkpoint: in training, keep only what enters each block and compute the rest again in backward.

    What differs from the authors' code: blocks can be checkpointed, without counting BatchNorm's statistics twice.

    Example:
        >>> FullNet(outputs=3, growth=4).eval()(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 3, 32, 32])
    """

    def __init__(
        self,
        outputs: int,
        growth: int = 24,
        layers: str = "basic",
        hybrid: bool = True,
        pooling: bool = False,
        dropout: float = 0.1,
        checkpoint: bool = False,
    ) -> None:
        """Make the network; see the class for the options."""
        super().__init__()
        check_at_least("growth", growth, 1)
        check_choice("layers", layers, ("basic", "bottleneck"))
        self.pooling, self.checkpoint = pooling, checkpoint
        self.divisor = 16 if pooling else 1
        self.stem = _unit(3, growth, 3)
        self.blocks = nn.ModuleList()
        channels = growth
        for nominal in NOMINAL:
            dilations = HYBRID[nominal] if hybrid else (nominal,) * 6
            block = _DenseBlock(channels, growth, dilations, layers == "bottleneck", dropout)
            channels = block.channels // 2
            self.blocks.append(nn.Sequential(block, _unit(block.channels, channels, 1)))
        self.head = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Raw output (B, outputs, H, W) of a batch (B, 3, H, W)."""
        size = x.shape[2:]
        x = self.stem(x)
        for number, block in enumerate(self.blocks, 1):
            x = _checkpointed(block, x) if self.checkpoint and self.training else block(x)
            if self.pooling and number <= 4:
                x = functional.max_pool2d(x, 2)
            elif self.pooling and number <= 6:
                enlarged = size if number == 6 else (size[0] // 4, size[1] // 4)
                x = functional.interpolate(x, enlarged, mode="bilinear", align_corners=False)
        raw: torch.Tensor = self.head(x)
        return raw


class _DenseBlock(nn.Module):
    """Layers that each see everything before them and add `growth` maps; `channels` come out."""

    def __init__(
        self, channels: int, growth: int, dilations: tuple[int, ...], bottleneck: bool, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for dilation in dilations:
            units = [_unit(channels, 4 * growth, 1)] if bottleneck else []
            last = _unit(4 * growth if bottleneck else channels, growth, 3, dilation)
            self.layers.append(nn.Sequential(*units, last, nn.Dropout(dropout)))
            channels += growth
        self.channels = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def _unit(before: int, after: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """Convolution without bias, LeakyReLU, BatchNorm."""
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(before, after, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.LeakyReLU(), nn.BatchNorm2d(after))


def _checkpointed(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Run a block, keeping only its input for the backward pass."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_at_rest(block)

    out: torch.Tensor = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
    return out


@contextmanager
def _statistics_at_rest(block: nn.Module) -> Iterator[None]:
    """Keep BatchNorm's running statistics as they are: the second computation of a batch is no second batch."""
    norms = [layer for layer in block.modules() if isinstance(layer, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)
