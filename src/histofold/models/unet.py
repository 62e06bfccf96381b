"""The five-level U-Net of the nuclei tutorials: 31,032,837 parameters at one output, 48.24 GMAC at 256 × 256."""

from __future__ import annotations

import torch
from torch import nn

from histofold.models.blocks import check_at_least, init_he, init_head, match, norm_layer


class UNet(nn.Module):
    """Plain U-Net with 2 × 2 transposed convolutions (Ronneberger, Fischer, Brox, MICCAI 2015, arXiv 1505.04597).

    Input (B, 3, H, W), any H and W of at least 16; output raw (B, outputs, H, W). Widths are `width` × 1, 2, 4, 8, 16;
    every level has two 3 × 3 "same" convolutions with ReLU; pooling is 2 × 2 maximum; the decoder concatenates
    [skip, up]. The head is a 3 × 3 convolution to two maps for each output and a 1 × 1 convolution.

    What differs from the Keras system this stands for, and why:

    - Its head's two maps went through a ReLU, and when both were dead the net could not learn any more: here the slope
      below zero is .01 (LeakyReLU). The parameters are the same.
    - It seeded all layers with the same number, so that layers of one shape started equal: here every layer has its own
      He-normal draw.
    - It had no normalisation: `norm="none"` is that; `norm="batch"` or `"group"` trains faster from scratch.
    - Sides that 16 does not divide are allowed: what pooling dropped is filled by repeating the last row and column.

    Example:
        >>> UNet(outputs=1, width=8)(torch.zeros(1, 3, 64, 48)).shape
        torch.Size([1, 1, 64, 48])
    """

    divisor = 16

    def __init__(self, outputs: int, width: int = 64, norm: str = "none") -> None:
        """Make the network; `width` is the number of channels at full resolution, `norm` is none, batch or group."""
        super().__init__()
        check_at_least("width", width, 1)
        widths = [width * factor for factor in (1, 2, 4, 8, 16)]
        self.encoder = nn.ModuleList(
            _double(before, after, norm) for before, after in zip([3, *widths], widths, strict=False)
        )
        steps = list(zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, fine, 2, stride=2) for deep, fine in steps)
        self.decoder = nn.ModuleList(_double(2 * fine, fine, norm) for _, fine in steps)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Sequential(
            nn.Conv2d(width, 2 * outputs, 3, padding=1), nn.LeakyReLU(0.01), nn.Conv2d(2 * outputs, outputs, 1)
        )
        init_he(self)
        last = self.head[-1]
        assert isinstance(last, nn.Conv2d)
        init_head(last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Raw output (B, outputs, H, W) of a batch (B, 3, H, W)."""
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        for up, block, skip in zip(self.up, self.decoder, reversed(skips[:-1]), strict=True):
            x = block(torch.cat([skip, match(up(x), skip)], 1))
        raw: torch.Tensor = self.head(x)
        return raw


def _double(before: int, after: int, norm: str) -> nn.Sequential:
    """Two 3 × 3 convolutions, each followed by the normalisation (if any) and a ReLU."""
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers.append(nn.Conv2d(channels, after, 3, padding=1, bias=norm == "none"))
        if norm != "none":
            layers.append(norm_layer(norm, after))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
