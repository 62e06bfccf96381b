"""Kidney-SegNet: a U-shaped network of DiCE units with a DiCE-ASPP bottleneck and attention gates."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from histofold.models.blocks import check_at_least, check_choice, init_head, match
from histofold.models.cpu import halved, normed, observed, pointwise, theirs
from histofold.models.dice import DiceUnit
from histofold.models.weights import load_kidney_segnet

_RATES = (4, 6, 8)


class KidneySegNet(nn.Module):
    """Kidney-SegNet (Aatresh et al., Computerized Medical Imaging and Graphics 93, 2021).

    Input (B, 3, H, W), output raw (B, outputs, H, W). Widths are `width` × 1, 2, 4, 8 at full, half, quarter and
    eighth resolution, two DiCE units a stage, an ASPP of DiCE units (kernel 1, and dilations 4, 6, 8) with a global
    mean at the bottom, and three decoder stages behind attention gates. `size` is the side in pixels that the units own
    their row and column kernels for: the tile's side in training. Other sizes run by the unit's resize rule, larger
    images by tiling.

    `decoder="gated"` is the authors': the decoder sees [gated skip, skip], and the deep feature reaches the output only
    through the gates' single channel. `decoder="unet"` adds the deep feature itself, brought to the skip's width by a
    1 × 1 convolution and doubled bilinearly; its three sources are interleaved, so that each group of the following
    DiCE unit sees all three. At width 32, one output and decoder="gated" the network has 972,356 parameters and
    7.272 GMAC at 512, 941,764 parameters and 1.818 GMAC at 256.

    `weights` is `none` or a file with the state dict of the authors' class, which loads into decoder="gated".

    What differs from the authors' code, and why: their three unused transposed convolutions (387,296 parameters) are
    not built; 512 is not written into the code; the ASPP's global mean pools what is there instead of 64 × 64; the ReLU
    behind the head belongs to the target (target=distance), and the head starts with a bias above zero, because a third
    to two thirds of theirs started dead.

    Example:
        >>> KidneySegNet(outputs=1, size=64, width=8)(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 1, 64, 64])
    """

    divisor = 8

    def __init__(
        self, outputs: int, size: int = 256, width: int = 32, decoder: str = "unet", weights: str = "none"
    ) -> None:
        """Make the network for tiles of `size` × `size` pixels.

        Raises:
            ConfigError: size is below 16, width is below 4, or the decoder is unknown.
            DataError: the weights file is missing, or not of the authors' class at this size, width and decoder.
        """
        super().__init__()
        check_at_least("size", size, 16)
        check_at_least("width", width, 4)
        check_choice("decoder", decoder, ("unet", "gated"))
        # Pooling rounds down, and so do the sizes that the units are built for.
        sizes = [size >> level for level in range(4)]
        widths = [width << level for level in range(4)]
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.stem_norm = nn.BatchNorm2d(width)
        self.encoder = nn.ModuleList()
        for level in range(4):
            before = widths[max(level - 1, 0)]
            units = [_Stage(before, widths[level], sizes[level])] if level else []
            self.encoder.append(nn.Sequential(*units, _Stage(widths[level], widths[level], sizes[level])))
        self.aspp = _DiceAspp(widths[3], sizes[3])
        self.decoder = nn.ModuleList(
            _Decoder(widths[level], widths[level + 1], sizes[level], deep=decoder == "unet") for level in (2, 1, 0)
        )
        self.head = nn.Conv2d(width, outputs, 1)
        init_head(self.head)
        if weights != "none":
            load_kidney_segnet(self, Path(weights))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Raw output (B, outputs, H, W) of a batch (B, 3, H, W)."""
        x = normed(self.stem, self.stem_norm, x)
        skips: list[torch.Tensor] = []
        for level, stage in enumerate(self.encoder):
            x = stage(halved(x) if level else x)
            skips.append(x)
        x = self.aspp(x)
        for stage, skip in zip(self.decoder, reversed(skips[:-1]), strict=True):
            x = stage(skip, x)
        return pointwise(self.head, x)


class _Stage(nn.Module):
    """A DiCE unit, BatchNorm and ReLU: (B, before, H, W) to (B, after, H, W)."""

    def __init__(self, before: int, after: int, size: int) -> None:
        super().__init__()
        self.unit = DiceUnit(before, after, size, size)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.unit(x, self.norm)
        return out


class _DiceAspp(nn.Module):
    """Four DiCE units side by side and the global mean, joined by one 1 × 1 convolution with a bias."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([DiceUnit(channels, channels, size, size, kernel=1)])
        self.branches.extend(DiceUnit(channels, channels, size, size, dilation=rate) for rate in _RATES)
        self.join = nn.Conv2d(5 * channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled() and not theirs(self, x):
            from histofold.models import dense_fast

            return dense_fast.joined(self.join, [branch(x) for branch in self.branches], dense_fast.means(x))
        mean = x.mean((2, 3), keepdim=True).expand_as(x)
        return pointwise(self.join, torch.cat([*(branch(x) for branch in self.branches), mean], 1))


class _AttentionGate(nn.Module):
    """The skip scaled by one map for each channel, which the coarser feature opens (B, C, H, W), (B, G, H/2, W/2)."""

    def __init__(self, skip: int, coarse: int, middle: int) -> None:
        super().__init__()
        self.form = "auto"
        self.from_skip = nn.Conv2d(skip, middle, 1)
        self.from_coarse = nn.Conv2d(coarse, middle, 1)
        self.up = nn.ConvTranspose2d(middle, middle, 3, stride=2, padding=1, output_padding=1)
        self.attend = nn.Conv2d(middle, 1, 1)
        # No activation behind this one: the multiplier may be negative or above one, as the authors have it.
        self.spread = nn.Conv2d(1, skip, 1)

    def forward(self, skip: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        return pointwise(self.spread, self.attention(skip, coarse)) * skip

    def attention(self, skip: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """The map (B, 1, H, W) that `spread` turns into the multiplier of each channel."""
        coarse = pointwise(self.from_coarse, coarse)
        if self.fast(skip, coarse):
            from histofold.models.gate_fast import attention_map

            return attention_map(self.from_skip, self.up, self.attend, skip, coarse)
        joined = pointwise(self.from_skip, skip) + match(self.up(coarse), skip)
        return pointwise(self.attend, joined.relu_()).sigmoid_()

    def fast(self, skip: torch.Tensor, coarse: torch.Tensor) -> bool:
        """Whether the CPU kernel can compute this prediction: the skip has twice the coarser feature's size."""
        doubles = skip.shape[2] == 2 * coarse.shape[2] and skip.shape[3] == 2 * coarse.shape[3]
        return self.form == "auto" and doubles and not torch.is_grad_enabled() and not theirs(self, skip)


class _Decoder(nn.Module):
    """Attention gate, concatenation, two DiCE units: skip (B, C, H, W), coarse (B, 2C, H/2, W/2) to (B, C, H, W)."""

    def __init__(self, skip: int, coarse: int, size: int, *, deep: bool) -> None:
        super().__init__()
        self.gate = _AttentionGate(skip, coarse, skip)
        self.deep = nn.Conv2d(coarse, skip, 1) if deep else None
        self.units = nn.Sequential(_Stage((3 if deep else 2) * skip, skip, size), _Stage(skip, skip, size))

    def forward(self, skip: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        if self._predicts_fast(skip, coarse):
            return self._in_one_pass(skip, coarse)
        gated = self.gate(skip, coarse)
        if self.deep is None:
            joined = torch.cat([gated, skip], 1)
        else:
            joined = torch.stack([gated, skip, self._deep(skip, coarse)], 2).flatten(1, 2)
        out: torch.Tensor = self.units(joined)
        return out

    def _predicts_fast(self, skip: torch.Tensor, coarse: torch.Tensor) -> bool:
        """Whether kernels can compute the gate and the first unit, and nobody wants to see what lies between them."""
        first = self.units[0]
        kernels = self.gate.fast(skip, coarse) and first.unit.is_fast(skip, first.norm)
        return kernels and not self.training and not observed(self)

    def _deep(self, skip: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        deep = pointwise(self.deep, coarse)
        return functional.interpolate(deep, skip.shape[2:], mode="bilinear", align_corners=False)

    def _in_one_pass(self, skip: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """The same, where the first unit reads its sources where they are: nothing is scaled or joined in memory."""
        from histofold.models.dice_fast import predict
        from histofold.models.dice_sources import gated_channels

        attention = self.gate.attention(skip, coarse)
        deep = None if self.deep is None else self._deep(skip, coarse)
        first, second = self.units
        return second(predict(first.unit, gated_channels(skip, deep, attention, self.gate.spread), first.norm))
