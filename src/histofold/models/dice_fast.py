"""The DiCE unit computed fast on a CPU: two passes over memory for a prediction, and little that is kept for training.

The plain form writes twenty planes for each unit: transposed copies, the three views side by side, their norm, their
activation, their shuffle. Here a window of rows stays in the cache while the three views of a pixel are computed,
normalised, activated and summed, so that a prediction reads x, writes the fused planes, reads them, and writes the
result. Training computes the views again where they are needed, which is cheaper than fetching them from memory: kept
for the backward pass are x, the fused planes and the projected planes.

Work is cut into bands of rows whose sums are added in a fixed order: the bits do not depend on the number of threads,
which is torch's (`torch.set_num_threads`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from histofold.models import dice_kernels as views
from histofold.models import dice_kernels_backward as backward
from histofold.models import dice_kernels_fusion as fusion

if TYPE_CHECKING:
    from histofold.models.dice import DiceUnit

Array = NDArray[np.float32]
Exact = NDArray[np.float64]

BAND = 32
"""Rows of a job: enough to make the rows shared with its neighbours cheap, few enough to keep many threads busy."""

BAND_GRAIN, PLANE_GRAIN = 1 << 17, 1 << 21
"""Values for each thread below which handing work over costs more than it saves; the work on planes is light."""

_NONE = np.empty((0, 3), np.float32)
_NONE_OF_IMAGES = np.empty((0, 0, 6), np.float32)


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process; a fork starts its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="dice")


def _each(work: Callable[..., None], jobs: Iterable[tuple[Any, ...]], threads: int) -> None:
    """Run jobs on a number of threads; the kernels release the GIL.

    Each thread takes one share of the jobs, because every hand-over waits for the GIL.
    """
    jobs = list(jobs)
    shares = [jobs[first::threads] for first in range(threads)]
    others = [_pool(os.getpid(), torch.get_num_threads()).submit(_run, work, share) for share in shares[1:]]
    _run(work, shares[0])
    for other in others:
        other.result()


def _threads(values: int, grain: int) -> int:
    """How many threads are worth their while, at most torch's number."""
    return max(1, min(torch.get_num_threads(), values // grain))


def _run(work: Callable[..., None], jobs: Iterable[tuple[Any, ...]]) -> None:
    for job in jobs:
        work(*job)


def _bands(batch: int, height: int) -> list[tuple[int, int, int]]:
    """Sample, first row and row behind the last of every job."""
    return [(n, top, min(top + BAND, height)) for n in range(batch) for top in range(0, height, BAND)]


def _single(values: Exact) -> Array:
    return np.ascontiguousarray(values, dtype=np.float32)


def _parameter(tensor: torch.Tensor) -> Exact:
    return tensor.detach().double().numpy()


def _flat(tensor: torch.Tensor) -> Array:
    return tensor.detach().contiguous().numpy().reshape(-1)


def _kernels(weight: torch.Tensor) -> Array:
    """Kernels (N, 1, k, k) as (N, 9); those of 1 × 1 stand in the middle of 3 × 3."""
    flat = weight.detach().contiguous().numpy().reshape(weight.shape[0], -1)
    if flat.shape[1] == 9:
        return flat
    wide = np.zeros((weight.shape[0], 9), np.float32)
    wide[:, 4] = flat[:, 0]
    return wide


def _kernel_gradients(gradients: Exact, weight: torch.Tensor) -> torch.Tensor:
    """Gradients (N, 9) in the shape of the weight."""
    kept = gradients if weight.shape[-1] == 3 else gradients[:, 4:5]
    return torch.from_numpy(_single(kept)).view_as(weight)


@dataclass
class _Norm:
    """A BatchNorm as numbers: y = factor · x + shift, and what its backward pass needs; all of shape (channels,)."""

    gamma: Exact
    mean: Exact
    rstd: Exact
    factor: Exact
    shift: Exact
    count: int

    @classmethod
    def of_running(cls, norm: nn.BatchNorm2d) -> _Norm:
        """The norm of a prediction, from the running statistics."""
        return cls._make(norm, _parameter(norm.running_mean), _parameter(norm.running_var), 0)

    @classmethod
    def of_batch(cls, norm: nn.BatchNorm2d, sums: Exact, count: int) -> _Norm:
        """The norm of a training step from the sums of x and x² (channels, 2); moves the running statistics."""
        mean = sums[:, 0] / count
        variance = np.maximum(sums[:, 1] / count - mean**2, 0)
        with torch.no_grad():
            moved = torch.from_numpy(mean), torch.from_numpy(variance * (count / max(count - 1, 1)))
            norm.running_mean.lerp_(moved[0].to(norm.running_mean.dtype), norm.momentum)
            norm.running_var.lerp_(moved[1].to(norm.running_var.dtype), norm.momentum)
            norm.num_batches_tracked += 1
        return cls._make(norm, mean, variance, count)

    @classmethod
    def _make(cls, norm: nn.BatchNorm2d, mean: Exact, variance: Exact, count: int) -> _Norm:
        gamma, rstd = _parameter(norm.weight), 1 / np.sqrt(variance + norm.eps)
        factor = gamma * rstd
        return cls(gamma, mean, rstd, factor, _parameter(norm.bias) - factor * mean, count)

    def backward(self, total: Exact, product: Exact) -> tuple[Exact, Exact, Exact]:
        """Gradients of gamma and beta, and (channels, 3) with dx = [0] · dy + [1] · x + [2].

        `total` is the sum of dy, `product` the sum of dy · x.
        """
        dgamma = self.rstd * (product - self.mean * total)
        own = -self.factor * self.rstd * dgamma / self.count
        rest = -self.factor * total / self.count - own * self.mean
        return dgamma, total, np.stack([self.factor, own, rest], -1)


def _activation(norm: _Norm, slope: Exact) -> Array:
    """Factor, shift and slope of a norm and its PReLU: (channels, 3)."""
    return _single(np.stack([norm.factor, norm.shift, slope], -1))


class _Geometry:
    """Shapes and kernels of one call."""

    def __init__(self, unit: DiceUnit, x: torch.Tensor) -> None:
        self.B, self.C, self.H, self.W = x.shape
        self.out = unit.out_channels
        self.groups = unit.project[0].groups
        self.p, self.q = self.C // self.groups, self.out // self.groups
        self.d = unit.dilation if unit.kernel == 3 else 1
        self.kc = _kernels(unit.channel).reshape(-1)
        self.kh = _kernels(unit.height).reshape(-1)
        self.kw = np.ascontiguousarray(_kernels(unit.width).T).reshape(-1)
        self.projection = _flat(unit.project[0].weight)
        self.pixels = self.H * self.W
        self.bands = _bands(self.B, self.H)
        self.size = (self.C, self.H, self.W)
        self.groups_of = (self.groups, self.p, self.q, self.H, self.W)
        values = self.B * max(self.C, self.out) * self.pixels
        self.band_threads, self.plane_threads = _threads(values, BAND_GRAIN), _threads(values, PLANE_GRAIN)

    def new(self, channels: int) -> Array:
        """An empty batch of planes; NumPy asks the system for large pages, which saves most of the page faults."""
        return np.empty(self.B * channels * self.pixels, np.float32)

    def tensor(self, flat: Array, channels: int) -> torch.Tensor:
        """Planes as a tensor (B, channels, H, W) on the same memory."""
        return torch.from_numpy(flat).view(self.B, channels, self.H, self.W)

    def planes(self) -> list[tuple[int, int]]:
        """Plane and channel of every output plane."""
        return [(n * self.out + c, c) for n in range(self.B) for c in range(self.out)]


def _view_rows(values: Exact, channels: int) -> Array:
    """(3C,) in the order of the views as (C, 3)."""
    return _single(values.reshape(3, channels).T)


def predict(unit: DiceUnit, x: torch.Tensor, outer: nn.BatchNorm2d | None) -> torch.Tensor:
    """The unit in eval mode without gradients, and ReLU(outer(·)) behind it where `outer` is given."""
    geometry = _Geometry(unit, x)
    fused, means = _fused_planes(unit, geometry, _flat(x))
    gate = _open_gate(unit, means)
    first = _Norm.of_running(unit.project[1])
    last = _Norm.of_running(outer) if outer is not None else None
    after = np.empty((geometry.B, geometry.out, 6), np.float64)
    after[..., 0], after[..., 1] = first.factor, first.shift
    after[..., 2] = _parameter(unit.project[2].weight)
    after[..., 3] = gate * (last.factor if last else 1.0)
    after[..., 4], after[..., 5] = (last.shift, 0.0) if last else (0.0, -np.inf)
    out = geometry.new(geometry.out)
    kernel, rows = geometry.projection, _single(after)
    _each(
        lambda n, h0, h1: fusion.project(
            fused, n, *geometry.groups_of, h0, h1, _NONE, kernel, rows, out, np.empty(0), np.empty((0, 2))
        ),
        geometry.bands,
        geometry.band_threads,
    )
    return geometry.tensor(out, geometry.out)


def _fused_planes(unit: DiceUnit, geometry: _Geometry, x: Array) -> tuple[Array, Exact]:
    """The fused planes of a prediction behind their norm and PReLU, and their means (B, C)."""
    C = geometry.C
    norm = _Norm.of_running(unit.views[0])
    a, b = _view_rows(norm.factor, C), _view_rows(norm.shift, C)
    s, f = _view_rows(_parameter(unit.views[1].weight), C), _flat(unit.fuse[0].weight).reshape(C, 3)
    after = _activation(_Norm.of_running(unit.fuse[1]), _parameter(unit.fuse[2].weight))
    fused, sums = geometry.new(C), np.zeros((len(geometry.bands), C, 2))
    kernels = (geometry.kc, geometry.kh, geometry.kw)
    _each(
        lambda j, n, h0, h1: views.view_join(
            x, n, *geometry.size, h0, h1, geometry.d, *kernels, a, b, s, f, after, fused, sums[j]
        ),
        ((j, *band) for j, band in enumerate(geometry.bands)),
        geometry.band_threads,
    )
    return fused, sums[..., 0].reshape(geometry.B, -1, C).sum(1) / geometry.pixels


def _open_gate(unit: DiceUnit, means: Exact) -> Exact:
    """The gate (B, C') of the fused planes' means (B, C)."""
    hidden = np.maximum(means @ _parameter(unit.gate[1].weight)[..., 0, 0].T, 0)
    result: Exact = 1 / (1 + np.exp(-(hidden @ _parameter(unit.gate[3].weight)[..., 0, 0].T)))
    return result


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
        out = step.forward(_flat(x))
        ctx.step = step
        ctx.save_for_backward(x, step.geometry.tensor(step.fused, step.geometry.C), *parameters)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, _, *parameters = ctx.saved_tensors  # fails where a parameter was changed in between, as it should
        step: _Step = ctx.step
        dx, gradients = step.backward(_flat(grad), _flat(x))
        named = [*(name for name, _ in step.unit.named_parameters()), "outer.weight", "outer.bias"]
        ordered = [gradients[name].view_as(p) for name, p in zip(named, parameters, strict=False)]
        return None, None, dx, *ordered


class _Step:
    """One training step of a unit: what forward leaves for backward."""

    def __init__(self, unit: DiceUnit, outer: nn.BatchNorm2d | None, x: torch.Tensor) -> None:
        self.unit, self.outer = unit, outer
        self.geometry = _Geometry(unit, x)

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
            name: value if isinstance(value, torch.Tensor) else torch.from_numpy(_single(value))
            for name, value in gradients.items()
        }
        return dx, tensors

    def _jobs(self) -> Iterable[tuple[int, int, int, int]]:
        return ((j, *band) for j, band in enumerate(self.geometry.bands))

    def _view_forward(self, x: Array) -> None:
        g, unit = self.geometry, self.unit
        jobs, kernels = len(g.bands), (g.kc, g.kh, g.kw)
        sums = np.zeros((jobs, 3, g.C, 2))
        _each(
            lambda j, n, h0, h1: views.view_sums(x, n, *g.size, h0, h1, g.d, *kernels, sums[j]),
            self._jobs(),
            g.band_threads,
        )
        self.view_norm = _Norm.of_batch(unit.views[0], sums.sum(0).reshape(3 * g.C, 2), g.B * g.pixels)
        self.a, self.b = _view_rows(self.view_norm.factor, g.C), _view_rows(self.view_norm.shift, g.C)
        s, f = _view_rows(_parameter(unit.views[1].weight), g.C), _flat(unit.fuse[0].weight).reshape(g.C, 3)
        self.fused, sums = g.new(g.C), np.zeros((jobs, g.C, 2))
        fused = self.fused
        _each(
            lambda j, n, h0, h1: views.view_join(
                x, n, *g.size, h0, h1, g.d, *kernels, self.a, self.b, s, f, _NONE, fused, sums[j]
            ),
            self._jobs(),
            g.band_threads,
        )
        self.fuse_norm = _Norm.of_batch(unit.fuse[1], sums.sum(0), g.B * g.pixels)
        self.before = _activation(self.fuse_norm, _parameter(unit.fuse[2].weight))

    def _project_forward(self) -> None:
        g, unit = self.geometry, self.unit
        self.projected = g.new(g.out)
        total, sums = np.zeros((len(g.bands), g.C)), np.zeros((len(g.bands), g.out, 2))
        _each(
            lambda j, n, h0, h1: fusion.project(
                self.fused, n, *g.groups_of, h0, h1, self.before, g.projection, _NONE_OF_IMAGES,
                self.projected, total[j], sums[j],
            ),
            self._jobs(),
            g.band_threads,
        )  # fmt: skip
        self.means = total.reshape(g.B, -1, g.C).sum(1) / g.pixels
        self.gate = _open_gate(unit, self.means)
        self.project_norm = _Norm.of_batch(unit.project[1], sums.sum(0), g.B * g.pixels)
        self.act = _activation(self.project_norm, _parameter(unit.project[2].weight))

    def _output_forward(self) -> torch.Tensor:
        g, gate = self.geometry, _single(self.gate.reshape(-1))
        after = np.tile([1.0, 0.0, -np.inf], (g.out, 1))
        if self.outer is not None:
            sums = np.zeros((g.B, g.out, 2))
            _each(
                lambda plane, c: fusion.scaled_sums(
                    self.projected, plane, c, g.pixels, self.act, gate, sums[plane // g.out]
                ),
                g.planes(),
                g.plane_threads,
            )
            self.outer_norm = _Norm.of_batch(self.outer, sums.sum(0), g.B * g.pixels)
            after = np.stack([self.outer_norm.factor, self.outer_norm.shift, np.zeros(g.out)], -1)
        self.after = _single(after)
        out = g.new(g.out)
        _each(
            lambda plane, c: fusion.scaled_write(self.projected, plane, c, g.pixels, self.act, gate, self.after, out),
            g.planes(),
            g.plane_threads,
        )
        return g.tensor(out, g.out)

    def _output_backward(self, grad: Array, gradients: dict[str, Any]) -> tuple[Array, Exact, Exact]:
        """Gradient before the projection's PReLU, its way through the norm (C', 3), and the gate's gradient (B, C')."""
        g, gate = self.geometry, _single(self.gate.reshape(-1))
        back = np.tile([1.0, 0.0, 0.0], (g.out, 1))
        if self.outer is not None:
            pairs = np.zeros((g.B, g.out, 2))
            _each(
                lambda plane, c: fusion.norm_sums(
                    grad, self.projected, plane, c, g.pixels, self.act, gate, self.after, pairs[plane // g.out]
                ),
                g.planes(),
                g.plane_threads,
            )
            dgamma, dbeta, back = self.outer_norm.backward(*pairs.sum(0).T)
            gradients["outer.weight"], gradients["outer.bias"] = dgamma, dbeta
        dz, rows = g.new(g.out), _single(back)
        sums, dgate = np.zeros((g.B, g.out, 3)), np.zeros(g.B * g.out)
        _each(
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
        squeeze = _parameter(self.unit.gate[1].weight)[..., 0, 0]
        excite = _parameter(self.unit.gate[3].weight)[..., 0, 0]
        hidden = np.maximum(self.means @ squeeze.T, 0)
        outer = dgate * self.gate * (1 - self.gate)
        inner = outer @ excite * (hidden > 0)
        gradients |= {"gate.1.weight": inner.T @ self.means, "gate.3.weight": outer.T @ hidden}
        return _single(inner @ squeeze / self.geometry.pixels)

    def _project_backward(
        self, dz: Array, after: Exact, shift: Array, gradients: dict[str, Any]
    ) -> tuple[Array, Exact]:
        """Gradient before the fused planes' PReLU, and its way through their norm (C, 3)."""
        g, rows, jobs = self.geometry, _single(after), len(self.geometry.bands)
        out, sums, dkernel = g.new(g.C), np.zeros((jobs, g.C, 3)), np.zeros((jobs, g.out * g.p, 9))
        _each(
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
        g, rows, jobs = self.geometry, _single(after), len(self.geometry.bands)
        kernels = (g.kc, g.kh, g.kw)
        sums = np.zeros((jobs, 3, g.C, 4))
        _each(
            lambda j, n, h0, h1: views.view_slopes(
                x, dz, self.fused, n, *g.size, h0, h1, g.d, *kernels, self.a, self.b, rows, sums[j]
            ),
            self._jobs(),
            g.band_threads,
        )
        bends = self._bends(sums.sum(0), gradients)
        dx = g.new(g.C)
        dkc, dkh, dkw = np.zeros((jobs, g.C, 9)), np.zeros((jobs, g.H, 9)), np.zeros((jobs, 9, g.W))
        _each(
            lambda j, n, h0, h1: backward.view_gradients(
                x, dz, self.fused, n, *g.size, h0, h1, g.d, *kernels, self.a, self.b, rows, bends, dx,
                dkc[j], dkh[j], dkw[j],
            ),
            self._jobs(),
            g.band_threads,
        )  # fmt: skip
        gradients["channel"] = _kernel_gradients(dkc.sum(0), self.unit.channel)
        gradients["height"] = _kernel_gradients(dkh.sum(0), self.unit.height)
        gradients["width"] = _kernel_gradients(dkw.sum(0).T, self.unit.width)
        return g.tensor(dx, g.C)

    def _bends(self, sums: Exact, gradients: dict[str, Any]) -> Array:
        """From the sums over g (3, C, 4) the gradients of weights, slopes and norm, and the views' own (C, 3, 4)."""
        g, unit = self.geometry, self.unit
        slope = _parameter(unit.views[1].weight).reshape(3, g.C)
        weight = _parameter(unit.fuse[0].weight).reshape(g.C, 3).T
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
        return _single(np.stack([up * slope, up, way[..., 1], way[..., 2]], -1).swapaxes(0, 1))
