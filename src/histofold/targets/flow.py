"""`flow`: foreground, and from every pixel of an object the direction to its centre."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from histofold.targets.base import Band, Labels, Target, as_labels


@dataclass(frozen=True)
class Flow(Target):
    """Three sigmoid channels: foreground, and the unit vector to the centre (y, x), each (1 + component) / 2.

    The centre is the instance's pixel nearest to its centroid, where the vector is 0, as it is on background. A
    simpler relative of Cellpose's flows (Stringer et al. 2021): straight to the centre instead of along simulated
    diffusion, which is the same for round objects, needs one pass, and is right for whatever part a crop shows.
    The bands `flow_y` and `flow_x` run from −1 to 1 and turn with the image in test-time augmentation.
    """

    name: ClassVar[str] = "flow"
    soft: ClassVar[tuple[int, ...]] = (1, 2)
    channels: int = field(default=3, init=False, repr=False)
    bands: tuple[Band, ...] = field(
        default=(Band("foreground"), Band("flow_y", -1.0, 1.0), Band("flow_x", -1.0, 1.0)), init=False, repr=False
    )
    activation: str = field(default="sigmoid", init=False, repr=False)
    default_loss: dict[str, float] = field(default_factory=lambda: {"bce": 1.0}, init=False, repr=False, compare=False)

    def encode(self, labels: NDArray[Any]) -> NDArray[np.float32]:
        """Labels (H, W) to float32 (3, H, W): foreground, (1 + y) / 2, (1 + x) / 2."""
        checked = as_labels(labels)
        return _vectors(checked, _centres(checked))

    def encode_crop(self, labels: NDArray[Any], mirrored: NDArray[Any]) -> NDArray[np.float32]:
        """As `encode`, mirrored labels by numbers of their own: an instance's centre is that of its own pixels.

        Of an instance and its mirror image together the centre would be the edge between them.
        """
        # Wide, as the numbers of 32-bit labels may be any.
        apart = mirrored.astype(np.int64) + int(labels.max(initial=0))
        return self.encode(np.where(mirrored > 0, apart, labels))

    def to_bands(self, raw: torch.Tensor) -> torch.Tensor:
        """Raw (B, 3, H, W) to foreground 0..1 and the vector's components −1..1 (B, 3, H, W)."""
        value = torch.sigmoid(raw.float())
        return torch.cat([value[:, :1], 2 * value[:, 1:] - 1], dim=1)


@numba.njit(cache=True)
def _centres(labels: Labels) -> NDArray[np.float64]:
    """(n + 1, 2) y, x of each label's pixel nearest to its centroid."""
    height, width = labels.shape
    count = labels.max() + 1
    sums = np.zeros((count, 3), np.float64)
    for y in range(height):
        for x in range(width):
            sums[labels[y, x], 0] += y
            sums[labels[y, x], 1] += x
            sums[labels[y, x], 2] += 1
    best = np.full(count, np.inf)
    centres = np.zeros((count, 2), np.float64)
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            if label > 0:
                off = (y - sums[label, 0] / sums[label, 2]) ** 2 + (x - sums[label, 1] / sums[label, 2]) ** 2
                if off < best[label]:
                    best[label] = off
                    centres[label, 0], centres[label, 1] = y, x
    return centres


@numba.njit(cache=True)
def _vectors(labels: Labels, centres: NDArray[np.float64]) -> NDArray[np.float32]:
    height, width = labels.shape
    out = np.full((3, height, width), 0.5, np.float32)
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            out[0, y, x] = label > 0
            down, right = centres[label, 0] - y, centres[label, 1] - x
            length = np.sqrt(down * down + right * right)
            if label > 0 and length > 0:
                out[1, y, x] = 0.5 + 0.5 * down / length
                out[2, y, x] = 0.5 + 0.5 * right / length
    return out
