"""What the fast DiCE unit reads off its layers: parameters, norms and kernels as numbers, and the shapes of a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from histofold.models.dice_jobs import BAND_GRAIN, PLANE_GRAIN, bands_of, thread_count

if TYPE_CHECKING:
    from histofold.models.dice import DiceUnit

Array = NDArray[np.float32]
Exact = NDArray[np.float64]


def single(values: Exact) -> Array:
    """The values as contiguous float32, which kernels take."""
    return np.ascontiguousarray(values, dtype=np.float32)


def parameter(tensor: torch.Tensor) -> Exact:
    """A parameter or a buffer in double precision, without its history."""
    return tensor.detach().double().numpy()


def flat(tensor: torch.Tensor) -> Array:
    """Planes or weights as one row of float32, on the tensor's own memory where it is contiguous."""
    return tensor.detach().contiguous().numpy().reshape(-1)


def kernels_of(weight: torch.Tensor) -> Array:
    """Kernels (N, 1, k, k) as (N, 9); those of 1 × 1 stand in the middle of 3 × 3."""
    values: Array = weight.detach().contiguous().numpy().reshape(weight.shape[0], -1)
    if values.shape[1] == 9:
        return values
    wide = np.zeros((weight.shape[0], 9), np.float32)
    wide[:, 4] = values[:, 0]
    return wide


def kernel_gradients(gradients: Exact, weight: torch.Tensor) -> torch.Tensor:
    """Gradients (N, 9) in the shape of the weight."""
    kept = gradients if weight.shape[-1] == 3 else gradients[:, 4:5]
    return torch.from_numpy(single(kept)).view_as(weight)


@dataclass
class Norm:
    """A BatchNorm as numbers: y = factor · x + shift, and what its backward pass needs; all of shape (channels,)."""

    gamma: Exact
    mean: Exact
    rstd: Exact
    factor: Exact
    shift: Exact
    count: int

    @classmethod
    def of_running(cls, norm: nn.BatchNorm2d) -> Norm:
        """The norm of a prediction, from the running statistics."""
        return cls._make(norm, parameter(norm.running_mean), parameter(norm.running_var), 0)

    @classmethod
    def of_batch(cls, norm: nn.BatchNorm2d, sums: Exact, count: int) -> Norm:
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
    def _make(cls, norm: nn.BatchNorm2d, mean: Exact, variance: Exact, count: int) -> Norm:
        gamma, rstd = parameter(norm.weight), 1 / np.sqrt(variance + norm.eps)
        factor = gamma * rstd
        return cls(gamma, mean, rstd, factor, parameter(norm.bias) - factor * mean, count)

    def backward(self, total: Exact, product: Exact) -> tuple[Exact, Exact, Exact]:
        """Gradients of gamma and beta, and (channels, 3) with dx = [0] · dy + [1] · x + [2].

        `total` is the sum of dy, `product` the sum of dy · x.
        """
        dgamma = self.rstd * (product - self.mean * total)
        own = -self.factor * self.rstd * dgamma / self.count
        rest = -self.factor * total / self.count - own * self.mean
        return dgamma, total, np.stack([self.factor, own, rest], -1)


def activation(norm: Norm, slope: Exact) -> Array:
    """Factor, shift and slope of a norm and its PReLU: (channels, 3)."""
    return single(np.stack([norm.factor, norm.shift, slope], -1))


class Geometry:
    """Shapes and kernels of one call."""

    def __init__(self, unit: DiceUnit, shape: tuple[int, ...]) -> None:
        self.B, self.C, self.H, self.W = shape
        self.out = unit.out_channels
        self.groups = unit.project[0].groups
        self.p, self.q = self.C // self.groups, self.out // self.groups
        self.d = unit.dilation if unit.kernel == 3 else 1
        self.kc = kernels_of(unit.channel).reshape(-1)
        self.kh = kernels_of(unit.height).reshape(-1)
        self.kw = np.ascontiguousarray(kernels_of(unit.width).T).reshape(-1)
        self.projection = flat(unit.project[0].weight)
        self.pixels = self.H * self.W
        self.bands = bands_of(self.B, self.H)
        self.size = (self.C, self.H, self.W)
        self.groups_of = (self.groups, self.p, self.q, self.H, self.W)
        values = self.B * max(self.C, self.out) * self.pixels
        self.band_threads, self.plane_threads = thread_count(values, BAND_GRAIN), thread_count(values, PLANE_GRAIN)

    def new(self, channels: int) -> Array:
        """An empty batch of planes; NumPy asks the system for large pages, which saves most of the page faults."""
        return np.empty(self.B * channels * self.pixels, np.float32)

    def tensor(self, flat: Array, channels: int) -> torch.Tensor:
        """Planes as a tensor (B, channels, H, W) on the same memory."""
        return torch.from_numpy(flat).view(self.B, channels, self.H, self.W)

    def planes(self) -> list[tuple[int, int]]:
        """Plane and channel of every output plane."""
        return [(n * self.out + c, c) for n in range(self.B) for c in range(self.out)]


def view_rows(values: Exact, channels: int) -> Array:
    """(3C,) in the order of the views as (C, 3)."""
    return single(values.reshape(3, channels).T)


def open_gate(unit: DiceUnit, means: Exact) -> Exact:
    """The gate (B, C') of the fused planes' means (B, C)."""
    # Not as matrix products: the threads of their library would spin beside the kernels'.
    squeeze, excite = (parameter(unit.gate[layer].weight)[..., 0, 0] for layer in (1, 3))
    hidden = np.maximum(np.einsum("bc,mc->bm", means, squeeze), 0)
    result: Exact = 1 / (1 + np.exp(-np.einsum("bm,cm->bc", hidden, excite)))
    return result
