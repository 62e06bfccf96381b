"""How deep a pixel lies in its instance: as the only channel (Kidney-SegNet), or beside foreground and border."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from histofold.errors import ConfigError
from histofold.registry import require
from histofold.targets.base import Band, Labels, Target, as_labels
from histofold.targets.border import Border
from histofold.targets.edt import instance_distance, normalised

AUTHORS_TOP = 255.0
AUTHORS_LEVEL = 24.0
"""The authors set predictions below this of 255 to zero: there foreground is .5."""

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"relu": F.relu, "softplus": F.softplus}


@dataclass(frozen=True)
class Distance(Target):
    """One regression channel: the distance of a pixel to the outside of its instance.

    `scale=instance`: `edge` on the outline, rising to 1 at the deepest pixel of every instance, whatever its size
    (`histofold.targets.edt.normalised`). Foreground is value / `edge`, cut at 1: it is .5 half-way between the 0 of
    the background and the outline.

    `scale=image`: as Kidney-SegNet's authors (Aatresh et al. 2021), pixels of distance stretched so that the deepest
    pixel of each image is 255; without nuclei all 0. Foreground is value / 48, cut at 1: .5 at their level 24.

    Args:
        scale: `instance` or `image`.
        edge: value on the outline, for `scale=instance`.
        activation: `softplus`, or the authors' `relu`, whose outputs can die.
    """

    name: ClassVar[str] = "distance"
    scale: str = "instance"
    edge: float = 0.25
    activation: str = "softplus"
    channels: int = field(default=1, init=False, repr=False)
    bands: tuple[Band, ...] = field(default=(), init=False, repr=False)
    default_loss: dict[str, float] = field(default_factory=lambda: {"mse": 1.0}, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.scale not in ("instance", "image"):
            raise ConfigError(f"target.scale={self.scale!r}: expected instance or image")
        if self.activation not in _ACTIVATIONS:
            raise ConfigError(f"target.activation={self.activation!r}: expected {' or '.join(_ACTIVATIONS)}")
        require(0 < self.edge < 1, "target.edge", self.edge, "between 0 and 1")
        object.__setattr__(self, "bands", (Band("foreground"), Band("distance", 0.0, self.top)))

    @property
    def top(self) -> float:
        """Value of the deepest pixel."""
        return 1.0 if self.scale == "instance" else AUTHORS_TOP

    def encode(self, labels: NDArray[Any]) -> NDArray[np.float32]:
        """Labels (H, W) to float32 (1, H, W), 0 on background."""
        checked = as_labels(labels)
        if self.scale == "instance":
            return normalised(checked, self.edge)[None]
        depth = instance_distance(checked)
        return (depth * (AUTHORS_TOP / max(float(depth.max(initial=0)), 1.0)))[None].astype(np.float32)

    def to_bands(self, raw: torch.Tensor) -> torch.Tensor:
        """Raw (B, 1, H, W) to foreground and distance (B, 2, H, W)."""
        value = _ACTIVATIONS[self.activation](raw.float()).clamp(max=self.top)
        full = self.edge if self.scale == "instance" else 2 * AUTHORS_LEVEL
        return torch.cat([(value / full).clamp(max=1), value], dim=1)


@dataclass(frozen=True)
class BorderDistance(Border):
    """Three sigmoid channels: those of `border`, and the normalised distance as a soft label (0 on the outline).

    The default loss steepens the distance: with Dice beside cross entropy, depths of .1 .2 .4 .8 are learned as .04 .12
    .61 .96. Their order stays, which is all that a watershed asks; on one fold of nuclei, with one seed, that was
    better by .01 than the depths as they are (`loss=bce_dice`, docs/results.md).

    Args:
        width, narrowest, widest: of the border, as in `border`.
    """

    name: ClassVar[str] = "border_distance"
    soft: ClassVar[tuple[int, ...]] = (2,)
    default_loss: dict[str, float] = field(
        default_factory=lambda: {"bce": 1.0, "dice": 1.0, "steepen": 1.0}, init=False, repr=False, compare=False
    )
    channels: int = field(default=3, init=False, repr=False)
    bands: tuple[Band, ...] = field(
        default=(Band("foreground"), Band("border"), Band("distance")), init=False, repr=False
    )

    def encode(self, labels: NDArray[Any]) -> NDArray[np.float32]:
        """Labels (H, W) to float32 (3, H, W): foreground, border, distance."""
        return self._with_depth(as_labels(labels))

    def encode_crop(self, labels: NDArray[Any], mirrored: NDArray[Any]) -> NDArray[np.float32]:
        """As that of `border`, the distance beside it."""
        return self._with_depth(as_labels(labels + mirrored), mirrored == 0)

    def _with_depth(self, labels: Labels, real: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        return np.concatenate([self.planes(labels, real), normalised(labels, 0.0)[None]])
