"""A training step of the fast DiCE unit: what forward keeps, and the gradients that backward makes of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from histofold.models import dice_kernels as views
from histofold.models import dice_kernels_backward as backward
from histofold.models import dice_kernels_fusion as fusion
from histofold.models.dice_jobs import each
from histofold.models.dice_numbers import (
    Array,
    Exact,
    Geometry,
    Norm,
    activation,
    flat,
    kernel_gradients,
    open_gate,
    parameter,
    single,
    view_rows,
)

if TYPE_CHECKING:
    from histofold.models.dice import DiceUnit


def train(unit: DiceUnit, x: torch.Tensor, outer: nn.BatchNorm2d | None) -> torch.Tensor:
    """The unit in train mode, and ReLU(outer(·)) behind it where `outer` is given; differentiable once."""
    parameters = [*unit.parameters(), *(outer.parameters() if outer is not None else ())]
    out: torch.Tensor = _Train.apply(unit, outer, x, *parameters)
    return out


class _Train(torch.autograd.Function):
    """Forward and backward of a training step; parameters are passed for autograd alone and read from the modules."""

    @staticmethod
    def forward(
        ctx: Any, unit: DiceUnit, outer: nn.BatchNorm2d | None, x: torch.Tensor, *parameters: torch.Tensor
    ) -> torch.Tensor:
        x = x.contiguous()
        step = _Step(unit, outer, x)
        out = step.forward(flat(x))
        ctx.step = step
        ctx.save_for_backward(x, step.geometry.tensor(step.fused, step.geometry.C), *parameters)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, _, *parameters = ctx.saved_tensors  # fails where a parameter was changed in between, as it should
        step: _Step = ctx.step
        dx, gradients = step.backward(flat(grad), flat(x))
        named = [*(name for name, _ in step.unit.named_parameters()), "outer.weight", "outer.bias"]
        ordered = [gradients[name].view_as(p) for name, p in zip(named, parameters, strict=False)]
        return None, None, dx, *ordered


class _Step:
    """One training step of a unit: what forward leaves for backward."""

    def __init__(self, unit: DiceUnit, outer: nn.BatchNorm2d | None, x: torch.Tensor) -> None:
        self.unit, self.outer = unit, outer
        self.geometry = Geometry(unit, x.shape)

    def forward(self, x: Array) -> torch.Tensor:
        """Output planes of the input planes."""
        self._view_forward(x)
        self._project_forward()
        return self._output_forward()

    def backward(self, grad: Array, x: Array) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The gradients of x and of every parameter by its name."""
        gradients: dict[str, Any] = {}
        dz, after, dgate = self._output_backward(grad, gradients)
        shift = self._gate_backward(dgate, gradients)
        dz, after = self._project_backward(dz, after, shift, gradients)
        dx = self._view_backward(x, dz, after, gradients)
        tensors = {
            name: value if isinstance(value, torch.Tensor) else torch.from_numpy(single(value))
            for name, value in gradients.items()
        }
        return dx, tensors

    def _jobs(self) -> Iterable[tuple[int, int, int, int]]:
        return ((j, *band) for j, band in enumerate(self.geometry.bands))

    def _view_forward(self, x: Array) -> None:
        g, unit = self.geometry, self.unit
        jobs, kernels = len(g.bands), (g.kc, g.kh, g.kw)
        sums = np.zeros((jobs, 3, g.C, 2))
        each(
            lambda j, n, h0, h1: views.view_sums(x, n, *g.size, h0, h1, g.d, *kernels, sums[j]),
            self._jobs(),
            g.band_threads,
        )
        self.view_norm = Norm.of_batch(unit.views[0], sums.sum(0).reshape(3 * g.C, 2), g.B * g.pixels)
        self.a, self.b = view_rows(self.view_norm.factor, g.C), view_rows(self.view_norm.shift, g.C)
        s, f = view_rows(parameter(unit.views[1].weight), g.C), flat(unit.fuse[0].weight).reshape(g.C, 3)
        self.fused, sums = g.new(g.C), np.zeros((jobs, g.C, 2))
        fused = self.fused
        each(
            lambda j, n, h0, h1: views.view_join(
                x, n, *g.size, h0, h1, g.d, *kernels, self.a, self.b, s, f, fused, sums[j]
            ),
            self._jobs(),
            g.band_threads,
        )
        self.fuse_norm = Norm.of_batch(unit.fuse[1], sums.sum(0), g.B * g.pixels)
        self.before = activation(self.fuse_norm, parameter(unit.fuse[2].weight))

    def _project_forward(self) -> None:
        g, unit = self.geometry, self.unit
        self.projected = g.new(g.out)
        total, sums = np.zeros((len(g.bands), g.C)), np.zeros((len(g.bands), g.out, 2))
        each(
            lambda j, n, h0, h1: fusion.project(
                self.fused, n, *g.groups_of, h0, h1, self.before, g.projection, self.projected, total[j], sums[j]
            ),
            self._jobs(),
            g.band_threads,
        )  # fmt: skip
        self.means = total.reshape(g.B, -1, g.C).sum(1) / g.pixels
        self.gate = open_gate(unit, self.means)
        self.project_norm = Norm.of_batch(unit.project[1], sums.sum(0), g.B * g.pixels)
        self.act = activation(self.project_norm, parameter(unit.project[2].weight))

    def _output_forward(self) -> torch.Tensor:
        g, gate = self.geometry, single(self.gate.reshape(-1))
        after = np.tile([1.0, 0.0, -np.inf], (g.out, 1))
        if self.outer is not None:
            sums = np.zeros((g.B, g.out, 2))
            each(
                lambda plane, c: fusion.scaled_sums(
                    self.projected, plane, c, g.pixels, self.act, gate, sums[plane // g.out]
                ),
                g.planes(),
                g.plane_threads,
            )
            self.outer_norm = Norm.of_batch(self.outer, sums.sum(0), g.B * g.pixels)
            after = np.stack([self.outer_norm.factor, self.outer_norm.shift, np.zeros(g.out)], -1)
        self.after = single(after)
        out = g.new(g.out)
        each(
            lambda plane, c: fusion.scaled_write(self.projected, plane, c, g.pixels, self.act, gate, self.after, out),
            g.planes(),
            g.plane_threads,
        )
        return g.tensor(out, g.out)

    def _output_backward(self, grad: Array, gradients: dict[str, Any]) -> tuple[Array, Exact, Exact]:
        """Gradient before the projection's PReLU, its way through the norm (C', 3), and the gate's gradient (B, C')."""
        g, gate = self.geometry, single(self.gate.reshape(-1))
        back = np.tile([1.0, 0.0, 0.0], (g.out, 1))
        if self.outer is not None:
            pairs = np.zeros((g.B, g.out, 2))
            each(
                lambda plane, c: fusion.norm_sums(
                    grad, self.projected, plane, c, g.pixels, self.act, gate, self.after, pairs[plane // g.out]
                ),
                g.planes(),
                g.plane_threads,
            )
            dgamma, dbeta, back = self.outer_norm.backward(*pairs.sum(0).T)
            gradients["outer.weight"], gradients["outer.bias"] = dgamma, dbeta
        dz, rows = g.new(g.out), single(back)
        sums, dgate = np.zeros((g.B, g.out, 3)), np.zeros(g.B * g.out)
        each(
            lambda plane, c: fusion.gate_gradients(
                grad, self.projected, plane, c, g.pixels, self.act, gate, self.after, rows, dz, sums[plane // g.out],
                dgate,
            ),
            g.planes(),
            g.plane_threads,
        )  # fmt: skip
        total, product, slope = sums.sum(0).T
        dgamma, dbeta, after = self.project_norm.backward(total, product)
        gradients |= {"project.1.weight": dgamma, "project.1.bias": dbeta, "project.2.weight": slope}
        return dz, after, dgate.reshape(g.B, g.out)

    def _gate_backward(self, dgate: Exact, gradients: dict[str, Any]) -> Array:
        """What every pixel of the fused planes gets back through the gate: (B, C)."""
        squeeze = parameter(self.unit.gate[1].weight)[..., 0, 0]
        excite = parameter(self.unit.gate[3].weight)[..., 0, 0]
        hidden = np.maximum(self.means @ squeeze.T, 0)
        outer = dgate * self.gate * (1 - self.gate)
        inner = outer @ excite * (hidden > 0)
        gradients |= {"gate.1.weight": inner.T @ self.means, "gate.3.weight": outer.T @ hidden}
        return single(inner @ squeeze / self.geometry.pixels)

    def _project_backward(
        self, dz: Array, after: Exact, shift: Array, gradients: dict[str, Any]
    ) -> tuple[Array, Exact]:
        """Gradient before the fused planes' PReLU, and its way through their norm (C, 3)."""
        g, rows, jobs = self.geometry, single(after), len(self.geometry.bands)
        out, sums, dkernel = g.new(g.C), np.zeros((jobs, g.C, 3)), np.zeros((jobs, g.out * g.p, 9))
        each(
            lambda j, n, h0, h1: fusion.project_gradients(
                dz, self.projected, self.fused, n, *g.groups_of, h0, h1, self.before, g.projection, rows, shift, out,
                sums[j], dkernel[j],
            ),
            self._jobs(),
            g.band_threads,
        )  # fmt: skip
        total, product, slope = sums.sum(0).T
        dgamma, dbeta, before = self.fuse_norm.backward(total, product)
        gradients |= {"fuse.1.weight": dgamma, "fuse.1.bias": dbeta, "fuse.2.weight": slope}
        gradients["project.0.weight"] = dkernel.sum(0)
        return out, before

    def _view_backward(self, x: Array, dz: Array, after: Exact, gradients: dict[str, Any]) -> torch.Tensor:
        """The gradient of x (B, C, H, W)."""
        g, rows, jobs = self.geometry, single(after), len(self.geometry.bands)
        kernels = (g.kc, g.kh, g.kw)
        sums = np.zeros((jobs, 3, g.C, 4))
        each(
            lambda j, n, h0, h1: views.view_slopes(
                x, dz, self.fused, n, *g.size, h0, h1, g.d, *kernels, self.a, self.b, rows, sums[j]
            ),
            self._jobs(),
            g.band_threads,
        )
        bends = self._bends(sums.sum(0), gradients)
        dx = g.new(g.C)
        dkc, dkh, dkw = np.zeros((jobs, g.C, 9)), np.zeros((jobs, g.H, 9)), np.zeros((jobs, 9, g.W))
        each(
            lambda j, n, h0, h1: backward.view_gradients(
                x, dz, self.fused, n, *g.size, h0, h1, g.d, *kernels, self.a, self.b, rows, bends, dx,
                dkc[j], dkh[j], dkw[j],
            ),
            self._jobs(),
            g.band_threads,
        )  # fmt: skip
        gradients["channel"] = kernel_gradients(dkc.sum(0), self.unit.channel)
        gradients["height"] = kernel_gradients(dkh.sum(0), self.unit.height)
        gradients["width"] = kernel_gradients(dkw.sum(0).T, self.unit.width)
        return g.tensor(dx, g.C)

    def _bends(self, sums: Exact, gradients: dict[str, Any]) -> Array:
        """From the sums over g (3, C, 4) the gradients of weights, slopes and norm, and the views' own (C, 3, 4)."""
        g, unit = self.geometry, self.unit
        slope = parameter(unit.views[1].weight).reshape(3, g.C)
        weight = parameter(unit.fuse[0].weight).reshape(g.C, 3).T
        factor, shift = self.view_norm.factor.reshape(3, g.C), self.view_norm.shift.reshape(3, g.C)
        above, below, above_y, below_y = np.moveaxis(sums, -1, 0)
        z_below = factor * below_y + shift * below
        gradients["fuse.0.weight"] = (factor * above_y + shift * above + slope * z_below).T
        gradients["views.1.weight"] = weight * z_below
        total, product = weight * (above + slope * below), weight * (above_y + slope * below_y)
        dgamma, dbeta, way = self.view_norm.backward(total.reshape(-1), product.reshape(-1))
        gradients |= {"views.0.weight": dgamma, "views.0.bias": dbeta}
        way = way.reshape(3, g.C, 3)
        up = way[..., 0] * weight
        return single(np.stack([up * slope, up, way[..., 1], way[..., 2]], -1).swapaxes(0, 1))
