"""The DiCE unit: dimension-wise convolution and fusion, the building block of Kidney-SegNet."""

from __future__ import annotations

from math import gcd

import torch
from torch import nn
from torch.nn import functional

from histofold.models.cpu import observed


class DiceUnit(nn.Module):
    """Dimension-wise convolution and fusion (Mehta, Hajishirzi, Rastegari, arXiv 1906.03516, TPAMI 2021).

    Input (B, in_channels, H, W), output (B, out_channels, H, W). Three depthwise kernels see the volume from three
    sides: one kernel for each channel over (H, W), one for each row over (C, W), one for each column over (H, C). Their
    normalised views are fused by a 1 × 1 convolution that joins only the three views of one channel, then by a grouped
    3 × 3 convolution, which a squeeze-and-excite gate scales.

    Rows and columns own kernels, so the unit is built for a `height` and a `width` in pixels and is not
    translation-equivariant; at another size the row and the column view are resized there and back.

    The weights stand in these parameters: `channel`, `height`, `width` (the three kernels, (C|H|W, 1, k, k)), `views`
    (BatchNorm and PReLU over the 3C views in the order channel, height, width), `fuse` (1 × 1, BatchNorm, PReLU),
    `project` (3 × 3, BatchNorm, PReLU) and `gate`. Their number at k = 3 is
    9(C + H + W) + 9C + 6C + 9·C·C'/gcd(C, C') + 3C' + (C // 4)(C + C').

    What differs from the authors' code: sizes are arguments for each side and the computation need not follow the
    definition step by step. The function is theirs.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        height: int,
        width: int,
        kernel: int = 3,
        dilation: int = 1,
    ) -> None:
        """Make the unit for planes of `height` × `width` pixels; all views share `kernel` and `dilation`."""
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.size = (height, width)
        self.kernel, self.dilation = kernel, dilation
        self.form = "auto"
        self.channel = nn.Parameter(torch.empty(in_channels, 1, kernel, kernel))
        self.height = nn.Parameter(torch.empty(height, 1, kernel, kernel))
        self.width = nn.Parameter(torch.empty(width, 1, kernel, kernel))
        for weight in (self.channel, self.height, self.width):
            nn.init.kaiming_uniform_(weight, a=5**0.5)
        self.views = _norm_act(3 * in_channels)
        self.fuse = nn.Sequential(
            nn.Conv2d(3 * in_channels, in_channels, 1, groups=in_channels, bias=False), *_norm_act(in_channels)
        )
        groups = gcd(in_channels, out_channels)
        self.project = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, groups=groups, bias=False), *_norm_act(out_channels)
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, in_channels // 4, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels // 4, out_channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor, norm: nn.BatchNorm2d | None = None) -> torch.Tensor:
        """Output (B, out_channels, H, W) of an input (B, in_channels, H, W); with `norm`, ReLU(norm(output))."""
        if self.is_fast(x, norm):
            from histofold.models import dice_fast

            with torch.autocast(x.device.type, enabled=False):
                compute = dice_fast.train if self.training else dice_fast.predict
                return compute(self, x.float(), norm)
        out = self.plain(x)
        return out if norm is None else functional.relu(norm(out))

    def plain(self, x: torch.Tensor) -> torch.Tensor:
        """The unit as it is defined, step by step: the reference, and what is exported."""
        views = torch.cat([self._channel_view(x), self._height_view(x), self._width_view(x)], 1)
        views = self.views(views)
        # The volume shuffle puts the three views of one channel side by side, where the grouped 1 × 1 expects them.
        shuffled = views.unflatten(1, (3, self.in_channels)).transpose(1, 2).flatten(1, 2)
        fused = self.fuse(shuffled)
        out: torch.Tensor = self.project(fused) * self.gate(fused)
        return out

    def is_fast(self, x: torch.Tensor, norm: nn.BatchNorm2d | None) -> bool:
        """Whether the CPU kernels can compute this call, and nobody wants to see the steps in between."""
        return (
            self.form == "auto"
            and x.device.type == "cpu"
            and tuple(x.shape[2:]) == self.size
            and self.kernel in (1, 3)
            and self.channel.dtype == torch.float32
            # Gradients through running statistics are rare; the plain form has them.
            and (self.training or not torch.is_grad_enabled())
            and not observed(self)
            and all(_usual(layer, self.training) for layer in [*self.modules(), norm])
        )

    def _filter(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Depthwise filter of the second axis of `x`, of the same size."""
        padding = (self.kernel - 1) // 2 * self.dilation
        return functional.conv2d(x, weight, padding=padding, dilation=self.dilation, groups=weight.shape[0])

    def _channel_view(self, x: torch.Tensor) -> torch.Tensor:
        return self._filter(x, self.channel)

    def _height_view(self, x: torch.Tensor) -> torch.Tensor:
        """One kernel for each row, over the plane of channels and columns."""
        resized = _resize(x, (self.size[0], x.shape[3]))
        view = self._filter(resized.transpose(1, 2), self.height).transpose(1, 2)
        return _resize(view, (x.shape[2], x.shape[3]))

    def _width_view(self, x: torch.Tensor) -> torch.Tensor:
        """One kernel for each column, over the plane of rows and channels."""
        resized = _resize(x, (x.shape[2], self.size[1]))
        view = self._filter(resized.transpose(1, 3), self.width).transpose(1, 3)
        return _resize(view, (x.shape[2], x.shape[3]))


def set_form(model: nn.Module, form: str) -> None:
    """Let DiCE units and attention gates compute as `auto` (fast where they can) or as `plain` (always as defined)."""
    if form not in ("auto", "plain"):
        raise ValueError(f"expected auto or plain, found {form!r}")
    for layer in model.modules():
        if hasattr(layer, "form"):
            layer.form = form


def _usual(layer: nn.Module | None, training: bool) -> bool:
    """Whether a BatchNorm is in its unit's mode and keeps running statistics by a momentum, as the kernels take it."""
    if not isinstance(layer, nn.BatchNorm2d):
        return layer is None or not isinstance(layer, nn.modules.batchnorm._BatchNorm)
    return layer.training == training and layer.track_running_stats and layer.momentum is not None


def _norm_act(channels: int) -> nn.Sequential:
    """BatchNorm and a PReLU with one slope for each channel."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU(channels))


def _resize(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The authors' rule, one side at a time: bilinear (corners aligned) to a larger side, pooled to a smaller one."""
    for axis in (2, 3):
        now, then = x.shape[axis], size[axis - 2]
        if now == then:
            continue
        shape = (then, x.shape[3]) if axis == 2 else (x.shape[2], then)
        if now < then:
            x = functional.interpolate(x, shape, mode="bilinear", align_corners=True)
        else:
            x = functional.adaptive_avg_pool2d(x, shape)
    return x
