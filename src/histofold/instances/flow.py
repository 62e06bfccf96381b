"""Flow following: pixels walk along the predicted vectors, and those that end at one place are one instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from histofold.instances.base import Decoder, Map, Step, Tidy
from histofold.instances.cleanup import Labels, components, with_the_rest
from histofold.instances.dilation import dilate
from histofold.instances.flood import flood
from histofold.registry import require


class Walked(NamedTuple):
    """What the first step gives: where each pixel ends (flat index), and the foreground mask."""

    ends: NDArray[np.int32]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Follow(Tidy, Decoder):
    """Follow `flow_y`, `flow_x` pixel by pixel within the foreground, and join the ends that lie close together.

    Args:
        threshold: least foreground of an instance's pixel.
        doublings: a walk has 2 to this power steps; 7 crosses objects of radius 128.
        least_flow: where the vector is shorter, the walk ends.
        merge: pixels; ends closer than twice this and one are one centre.
        min_support: pixels that have to end at a centre; fewer got stuck, and join the instance beside them.
    """

    name: ClassVar[str] = "flow"
    threshold: float = 0.5
    doublings: int = 7
    least_flow: float = 0.25
    merge: int = 1
    min_support: int = 10

    def __post_init__(self) -> None:
        self._check_tidy()
        require(0 <= self.threshold <= 1, "instances.threshold", self.threshold, "0 to 1")
        require(1 <= self.doublings <= 12, "instances.doublings", self.doublings, "1 to 12")
        require(0 <= self.least_flow <= 1, "instances.least_flow", self.least_flow, "0 to 1")
        require(0 <= self.merge <= 32, "instances.merge", self.merge, "0 to 32 pixels")
        require(self.min_support >= 0, "instances.min_support", self.min_support, "0 or more pixels")

    @property
    def needs(self) -> tuple[str, ...]:
        """Bands it reads."""
        return ("foreground", "flow_y", "flow_x")

    def steps(self) -> tuple[Step, ...]:
        """Walks, joined ends, cleaning."""
        return (
            (self._walk, ("threshold", "least_flow", "doublings")),
            (self._join, ("merge", "min_support")),
            *self._tidy_steps(),
        )

    def _walk(self, bands: dict[str, Map]) -> Walked:
        mask = bands["foreground"] >= self.threshold
        ends = _next(bands["flow_y"], bands["flow_x"], mask, self.least_flow)
        for _ in range(self.doublings):
            ends = ends[ends]
        return Walked(ends, mask)

    def _join(self, walked: Walked) -> Labels:
        held = np.flatnonzero(walked.mask)
        count = np.bincount(walked.ends[held], minlength=walked.mask.size).reshape(walked.mask.shape)
        centres = components(dilate((count > 0).astype(np.int32), self.merge) > 0)
        support = np.bincount(centres.ravel(), weights=count.ravel())
        centres[support[centres] < self.min_support] = 0
        labels = np.zeros(walked.mask.size, np.int32)
        labels[held] = centres.ravel()[walked.ends[held]]
        level = np.zeros(walked.mask.shape, np.uint8)
        return with_the_rest(flood(level, labels.reshape(walked.mask.shape), walked.mask), walked.mask)


_AROUND = np.array([(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)])
_LEAST_COSINE = 0.3
"""A walk may turn aside by up to 70 degrees to stay in the foreground: so it slides along a hole or a dent."""


@numba.njit(cache=True)
def _next(down: Map, right: Map, mask: NDArray[np.bool_], least: float) -> NDArray[np.int32]:
    """Flat index of the foreground neighbour that each pixel's vector points at most; itself where the walk ends."""
    height, width = mask.shape
    out = np.empty(height * width, np.int32)
    for y in range(height):
        for x in range(width):
            out[y * width + x] = y * width + x
            length = np.sqrt(down[y, x] ** 2 + right[y, x] ** 2)
            if not mask[y, x] or length < max(least, 1e-6):
                continue
            best = _LEAST_COSINE * length
            for k in range(8):
                dy, dx = _AROUND[k]
                row, column = y + dy, x + dx
                along = (down[y, x] * dy + right[y, x] * dx) / np.sqrt(dy * dy + dx * dx)
                inside = 0 <= row < height and 0 <= column < width
                if inside and along > best and mask[row, column]:
                    best = along
                    out[y * width + x] = row * width + column
    return out
