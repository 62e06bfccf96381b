"""UNet++ with one convolution in each nested node and four heads, which can be pruned to a shallower depth."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from histofold.errors import ConfigError
from histofold.models.blocks import check_at_least, check_choice, init_he, init_head, match

DEPTHS = (1, 2, 3, 4)
"""Depths L1 to L4: how many poolings the output at that head has seen."""


class UNetPlusPlus(nn.Module):
    """UNet++ (Zhou, Siddiquee, Tajbakhsh, Liang, DLMIA 2018, arXiv 1807.10165; TMI 2020, arXiv 1912.05074).

    Input (B, 3, H, W), any H and W of at least 16; output raw (B, outputs, H, W). Five levels of `width` × 1 … 16; node
    X(i, j) joins all X(i, 0 … j-1) and the transposed convolution of X(i+1, j-1). Heads sit on X(0, 1) … X(0, 4); at
    width 64 there are 32,038,980 parameters and 94.89 GMAC at 256 × 256.

    Options:
        supervision: `heads` is the paper's, train mode gives a tuple of one raw output for each head, shallow first,
            and each has its loss; `average` is the nuclei system's, the heads are averaged and have one loss.
        mode: in eval mode, `accurate` averages the heads 1 … depth; `fast` gives head `depth` alone. Either computes no
            node that its output does not need: the encoder below `depth` is not run.
        depth: 1 to 4; `evaluate.depths=` picks it from OOF scores. All weights are kept, so one state dict serves all.

    What differs from the Keras system, and why: it averaged sigmoids, here raw outputs are averaged, because the
    activation belongs to the target; only nodes that are used are computed. Order and numbers are theirs: convolution,
    ReLU, BatchNorm with eps 1e-3 and momentum .01.

    Example:
        >>> UNetPlusPlus(outputs=1, width=4).eval()(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 1, 32, 48])
    """

    divisor = 16

    def __init__(
        self, outputs: int, width: int = 64, supervision: str = "heads", mode: str = "accurate", depth: int = 4
    ) -> None:
        """Make the network; see the class for the options."""
        super().__init__()
        check_at_least("width", width, 1)
        check_choice("supervision", supervision, ("heads", "average"))
        check_choice("mode", mode, ("accurate", "fast"))
        if depth not in DEPTHS:
            raise ConfigError(f"model.depth: expected 1, 2, 3 or 4, found {depth}")
        self.supervision, self.mode, self.depth = supervision, mode, depth
        widths = [width << level for level in range(5)]
        befores = [3, *widths[:-1]]
        self.encoder = nn.ModuleList(_unit(before, after, 2) for before, after in zip(befores, widths, strict=True))
        self.nodes = nn.ModuleDict()
        self.ups = nn.ModuleDict()
        for column in DEPTHS:
            for level in range(5 - column):
                key = _key(level, column)
                self.ups[key] = nn.ConvTranspose2d(widths[level + 1], widths[level], 2, stride=2)
                self.nodes[key] = _unit((column + 1) * widths[level], widths[level], 1)
        self.heads = nn.ModuleList(nn.Conv2d(width, outputs, 1) for _ in DEPTHS)
        init_he(self)
        for head in self.heads:
            assert isinstance(head, nn.Conv2d)
            init_head(head)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Raw output (B, outputs, H, W), or a tuple of four in train mode with a loss for each head."""
        if self.training:
            outputs = self.outputs(x, 4)
            return outputs if self.supervision == "heads" else torch.stack(outputs).mean(0)
        if self.mode == "fast":
            features = self._features(x, self.depth)
            raw: torch.Tensor = self.heads[self.depth - 1](features[-1])
            return raw
        return torch.stack(self.outputs(x, self.depth)).mean(0)

    def outputs(self, x: torch.Tensor, depth: int) -> tuple[torch.Tensor, ...]:
        """Raw outputs (B, outputs, H, W) of the heads 1 … depth; all depths can be scored from one pass."""
        features = self._features(x, depth)
        return tuple(head(feature) for head, feature in zip(self.heads, features, strict=False))

    def _features(self, x: torch.Tensor, depth: int) -> list[torch.Tensor]:
        """X(0, 1) … X(0, depth), computed diagonal by diagonal, so that nothing below `depth` is touched."""
        rows: list[list[torch.Tensor]] = []
        for bottom in range(depth + 1):
            x = self.encoder[bottom](functional.max_pool2d(x, 2) if bottom else x)
            rows.append([x])
            for level in range(bottom - 1, -1, -1):
                key = _key(level, bottom - level)
                up = match(self.ups[key](rows[level + 1][-1]), rows[level][0])
                rows[level].append(self.nodes[key](torch.cat([*rows[level], up], 1)))
        return rows[0][1:]


def choose_depth(scores: Mapping[int, float], tolerance: float) -> int:
    """The shallowest depth whose score (greater is better) is at most `tolerance` below the best one's.

    Raises:
        ValueError: no scores, or a negative tolerance.
    """
    if not scores or tolerance < 0:
        raise ValueError(f"expected scores and a tolerance of at least 0, found {dict(scores)} and {tolerance}")
    least = max(scores.values()) - tolerance
    return min(depth for depth, score in scores.items() if score >= least)


def _key(level: int, column: int) -> str:
    """Name of node X(level, column)."""
    return f"{level}_{column}"


def _unit(before: int, after: int, count: int) -> nn.Sequential:
    """`count` times a 3 × 3 convolution, ReLU and BatchNorm, in this order."""
    layers: list[nn.Module] = []
    for channels in (before, after)[:count]:
        layers += [nn.Conv2d(channels, after, 3, padding=1), nn.ReLU(inplace=True)]
        layers += [nn.BatchNorm2d(after, eps=1e-3, momentum=0.01)]
    return nn.Sequential(*layers)
