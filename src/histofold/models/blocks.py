"""Small parts that several networks share."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from histofold.errors import ConfigError

HEAD_BIAS = 0.1
"""Start of every head's bias: above zero, so that a target with a ReLU gets gradients from the first step on."""

HEAD_STD = 0.01
"""Spread of every head's weights: outputs start within a few hundredths of `HEAD_BIAS`, none of them negative."""


def init_head(head: nn.Conv2d) -> None:
    """Start a head so that it can not be dead: small weights, and a bias above zero where it has one."""
    nn.init.normal_(head.weight, std=HEAD_STD)
    if head.bias is not None:
        nn.init.constant_(head.bias, HEAD_BIAS)


def init_he(module: nn.Module) -> None:
    """He-normal weights (fan in, ReLU) and zero bias for every convolution inside `module`."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def match(coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
    """Bring `coarse` (B, C, h, w) to the height and width of `fine` by repeating its last row and column.

    Pooling an odd side drops one row, which doubling does not bring back; on even sides this does nothing.
    """
    bottom, right = fine.shape[-2] - coarse.shape[-2], fine.shape[-1] - coarse.shape[-1]
    if bottom == 0 and right == 0:
        return coarse
    return functional.pad(coarse, (0, right, 0, bottom), mode="replicate")


def norm_layer(kind: str, channels: int) -> nn.Module:
    """A normalisation by name: none, batch, or group (of at most 32 groups).

    Raises:
        ConfigError: another name.
    """
    if kind == "none":
        return nn.Identity()
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        groups = next(count for count in (32, 16, 8, 4, 2, 1) if channels % count == 0)
        return nn.GroupNorm(groups, channels)
    raise ConfigError(f"model.norm: expected none, batch or group, found {kind!r}")


def check_choice(option: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that is not among `known`.

    Raises:
        ConfigError: names the option, the value and what is known.
    """
    if value not in known:
        raise ConfigError(f"model.{option}: expected one of {', '.join(known)}, found {value!r}")


def check_at_least(option: str, value: float, least: float) -> None:
    """Refuse a number below `least`.

    Raises:
        ConfigError: names the option, the value and the bound.
    """
    if value < least:
        raise ConfigError(f"model.{option}: expected at least {least}, found {value}")
