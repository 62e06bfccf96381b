"""The shallow bilinear U-Net for glomeruli: 7,782,913 parameters at one output, 42.40 GMAC at 256 × 256."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from histofold.models.blocks import check_at_least, init_he, init_head


class GlomerulusUNet(nn.Module):
    """U-Net with three poolings and bilinear doubling (Ronneberger et al., 2015, in the small form used for glomeruli).

    Input (B, 3, H, W), any H and W of at least 8; output raw (B, outputs, H, W). Widths are `width` × 1, 2, 4, 8; every
    level has two 3 × 3 convolutions with bias and ReLU; the decoder concatenates [up, skip]; the head is 1 × 1.

    What differs from the system this stands for, and why: weights start He-normal and the head with a bias above zero,
    since there is no normalisation; a side that 8 does not divide is allowed, because the deep feature is resized to
    the skip's size, which is doubling on even sides.

    Example:
        >>> GlomerulusUNet(outputs=1, width=8)(torch.zeros(1, 3, 40, 64)).shape
        torch.Size([1, 1, 40, 64])
    """

    divisor = 8

    def __init__(self, outputs: int, width: int = 64) -> None:
        """Make the network; `width` is the number of channels at full resolution."""
        super().__init__()
        check_at_least("width", width, 1)
        widths = [width << level for level in range(4)]
        befores = [3, *widths[:-1]]
        self.encoder = nn.ModuleList(_double(before, after) for before, after in zip(befores, widths, strict=True))
        self.decoder = nn.ModuleList(_double(3 * widths[level], widths[level]) for level in (2, 1, 0))
        self.head = nn.Conv2d(width, outputs, 1)
        init_he(self)
        init_head(self.head)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Raw output (B, outputs, H, W) of a batch (B, 3, H, W)."""
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for block, skip in zip(self.decoder, reversed(skips[:-1]), strict=True):
            up = functional.interpolate(x, skip.shape[2:], mode="bilinear", align_corners=True)
            x = block(torch.cat([up, skip], 1))
        raw: torch.Tensor = self.head(x)
        return raw


def _double(before: int, after: int) -> nn.Sequential:
    """Two 3 × 3 convolutions with ReLU."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1),
        nn.ReLU(inplace=True),
    )
