"""The DiCE unit computed fast on a CPU: a pass over memory for a prediction, and little that is kept for training.

The plain form writes twenty planes for each unit: transposed copies, the three views side by side, their norm, their
activation, their shuffle. A prediction reads x and writes the projected planes; the views of a pixel are computed,
normalised, activated, summed and projected in between, in memory that the cache holds. What follows waits for the gate,
which needs the mean of whole planes, and changes the projected planes in place. Training keeps x, the fused planes and
the projected planes, and computes the views again where they are needed, which is cheaper than fetching them from
memory.

Work is cut into bands of rows and ranges of channels whose sums are added in a fixed order: the bits do not depend on
the number of threads, which is torch's (`torch.set_num_threads`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from histofold.models import dice_kernels_predict as kernels
from histofold.models.dice_jobs import each
from histofold.models.dice_lanes import LANES
from histofold.models.dice_numbers import Array, Exact, Geometry, Norm, open_gate, parameter, single
from histofold.models.dice_sources import Channels, plain_channels
from histofold.models.dice_training import train

if TYPE_CHECKING:
    from histofold.models.dice import DiceUnit

__all__ = ["predict", "train"]

VALUES = 1 << 14
"""Values of one channel in a band of rows, about: windows of three channels and a group share the second cache."""

JOBS = 16
"""Jobs of an image at least, where it has as many groups of channels and bands."""


def predict(unit: DiceUnit, x: torch.Tensor | Channels, outer: nn.BatchNorm2d | None) -> torch.Tensor:
    """The unit in eval mode without gradients, and ReLU(outer(·)) behind it where `outer` is given."""
    given = x if isinstance(x, Channels) else plain_channels(x)
    geometry = Geometry(unit, given.shape)
    planes, means = _projected_planes(unit, geometry, given)
    gate = open_gate(unit, means)
    slope = parameter(unit.project[2].weight)
    last = Norm.of_running(outer) if outer is not None else None
    after = np.empty((geometry.B, geometry.out, 4), np.float64)
    scale = gate * (last.factor if last else 1.0)
    after[..., 0], after[..., 1] = scale * slope, scale * (1 - slope)
    after[..., 2], after[..., 3] = (last.shift, 0.0) if last else (0.0, -np.inf)
    rows, total = single(after.reshape(-1, 4)), geometry.B * geometry.out
    step = -(-total // (JOBS * geometry.B))
    each(
        lambda first: kernels.finish_planes(planes, first, min(first + step, total), geometry.pixels, rows),
        ((first,) for first in range(0, total, step)),
        geometry.band_threads,
    )
    return geometry.tensor(planes, geometry.out)


def _projected_planes(unit: DiceUnit, geometry: Geometry, given: Channels) -> tuple[Array, Exact]:
    """The projected planes behind their norm, and the means (B, C) of the fused planes."""
    C, W = geometry.C, geometry.W
    norm = Norm.of_running(unit.project[1])
    kc, constants = _view_numbers(unit, geometry)
    kw = np.zeros((9, -(-W // LANES) * LANES), np.float32)
    kw[:, :W] = geometry.kw.reshape(9, W)
    kernel = single(geometry.projection.reshape(geometry.out, -1) * norm.factor[:, None]).reshape(-1)
    numbers = (geometry.kh, kw.reshape(-1), constants, kernel, single(norm.shift))
    sources = given.sources
    jobs = _jobs(geometry)
    out, sums = geometry.new(geometry.out), np.zeros((len(jobs), C))
    each(
        lambda j, n, *job: kernels.view_project(
            *sources, n, geometry.size, *job, geometry.p, geometry.q, geometry.d, kc, *numbers, out, sums[j]
        ),
        ((j, *job) for j, job in enumerate(jobs)),
        geometry.band_threads,
    )
    return out, sums.reshape(geometry.B, -1, C).sum(1) / geometry.pixels


def _view_numbers(unit: DiceUnit, geometry: Geometry) -> tuple[Array, Array]:
    """The channel view's kernels behind their norm, flat, and the constants (C, 14) of the fused value of a pixel."""
    C = geometry.C
    views, fuse = Norm.of_running(unit.views[0]), Norm.of_running(unit.fuse[1])
    factor, shift = views.factor.reshape(3, C).T, views.shift.reshape(3, C).T
    slope, own = parameter(unit.views[1].weight).reshape(3, C).T, parameter(unit.fuse[2].weight)
    weight = parameter(unit.fuse[0].weight).reshape(C, 3) * fuse.factor[:, None]
    e = np.empty((C, 14))
    e[:, 0], e[:, 1:5:2], e[:, 2:5:2], e[:, 5] = shift[:, 0], factor[:, 1:], shift[:, 1:], fuse.shift
    e[:, 6:12:2], e[:, 7:12:2] = weight * slope, weight * (1 - slope)
    e[:, 12], e[:, 13] = own, 1 - own
    return single(geometry.kc.reshape(C, 9) * factor[:, :1]).reshape(-1), single(e)


def _jobs(geometry: Geometry) -> list[tuple[int, int, int, int, int]]:
    """Sample, rows from and to, and groups from and to of every job; one number of jobs for each sample."""
    rows = min(geometry.H, max(16, VALUES // geometry.W // 2 * 2))
    bands = -(-geometry.H // rows)
    step = -(-geometry.groups // -(-JOBS // bands))
    return [
        (n, top, min(top + rows, geometry.H), group, min(group + step, geometry.groups))
        for n in range(geometry.B)
        for top in range(0, geometry.H, rows)
        for group in range(0, geometry.groups, step)
    ]
