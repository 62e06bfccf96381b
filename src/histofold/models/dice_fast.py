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

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from histofold.models import dice_kernels as views
from histofold.models import dice_kernels_fusion as fusion
from histofold.models.dice_jobs import each
from histofold.models.dice_numbers import (
    NO_ROWS,
    Array,
    Exact,
    Geometry,
    Norm,
    activation,
    flat,
    open_gate,
    parameter,
    single,
    view_rows,
)
from histofold.models.dice_training import train

if TYPE_CHECKING:
    from histofold.models.dice import DiceUnit

__all__ = ["predict", "train"]


def predict(unit: DiceUnit, x: torch.Tensor, outer: nn.BatchNorm2d | None) -> torch.Tensor:
    """The unit in eval mode without gradients, and ReLU(outer(·)) behind it where `outer` is given."""
    geometry = Geometry(unit, x)
    fused, means = _fused_planes(unit, geometry, flat(x))
    gate = open_gate(unit, means)
    first = Norm.of_running(unit.project[1])
    last = Norm.of_running(outer) if outer is not None else None
    after = np.empty((geometry.B, geometry.out, 6), np.float64)
    after[..., 0], after[..., 1] = first.factor, first.shift
    after[..., 2] = parameter(unit.project[2].weight)
    after[..., 3] = gate * (last.factor if last else 1.0)
    after[..., 4], after[..., 5] = (last.shift, 0.0) if last else (0.0, -np.inf)
    out = geometry.new(geometry.out)
    kernel, rows = geometry.projection, single(after)
    each(
        lambda n, h0, h1: fusion.project(
            fused, n, *geometry.groups_of, h0, h1, NO_ROWS, kernel, rows, out, np.empty(0), np.empty((0, 2))
        ),
        geometry.bands,
        geometry.band_threads,
    )
    return geometry.tensor(out, geometry.out)


def _fused_planes(unit: DiceUnit, geometry: Geometry, x: Array) -> tuple[Array, Exact]:
    """The fused planes of a prediction behind their norm and PReLU, and their means (B, C)."""
    C = geometry.C
    norm = Norm.of_running(unit.views[0])
    a, b = view_rows(norm.factor, C), view_rows(norm.shift, C)
    s, f = view_rows(parameter(unit.views[1].weight), C), flat(unit.fuse[0].weight).reshape(C, 3)
    after = activation(Norm.of_running(unit.fuse[1]), parameter(unit.fuse[2].weight))
    fused, sums = geometry.new(C), np.zeros((len(geometry.bands), C, 2))
    kernels = (geometry.kc, geometry.kh, geometry.kw)
    each(
        lambda j, n, h0, h1: views.view_join(
            x, n, *geometry.size, h0, h1, geometry.d, *kernels, a, b, s, f, after, fused, sums[j]
        ),
        ((j, *band) for j, band in enumerate(geometry.bands)),
        geometry.band_threads,
    )
    return fused, sums[..., 0].reshape(geometry.B, -1, C).sum(1) / geometry.pixels
