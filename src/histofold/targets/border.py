"""`border`: foreground, and where two objects touch or nearly touch (the channel that won DSB 2018)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from histofold.registry import require
from histofold.targets.base import Band, Labels, Target, as_labels
from histofold.targets.touching import touching_border


@dataclass(frozen=True)
class Border(Target):
    """Two sigmoid channels: foreground, and the border between objects that touch or nearly touch.

    A pixel is border when its two nearest objects i, j are both within w_ij + ½ pixels (a pixel of an object has
    distance 0 to it). w_ij belongs to the smaller of the two: `width` × the radius of a disc of its area, rounded, and
    kept within `narrowest` and `widest`, so that small nuclei keep a core and large ones get a border worth learning.
    After Topcoders' DSB 2018 solution (touching borders as a channel of their own, wider between large nuclei).

    Args:
        width: border half-width as a share of the smaller object's equivalent radius.
        narrowest: smallest half-width in pixels.
        widest: largest half-width in pixels.
    """

    name: ClassVar[str] = "border"
    width: float = 0.2
    narrowest: int = 1
    widest: int = 4
    channels: int = field(default=2, init=False, repr=False)
    bands: tuple[Band, ...] = field(default=(Band("foreground"), Band("border")), init=False, repr=False)
    activation: str = field(default="sigmoid", init=False, repr=False)
    default_loss: dict[str, float] = field(
        default_factory=lambda: {"bce": 1.0, "dice": 1.0}, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        require(self.width >= 0, "target.width", self.width, "0 or more (share of the radius)")
        require(
            1 <= self.narrowest <= self.widest <= 16,
            "target.narrowest, target.widest",
            (self.narrowest, self.widest),
            "1 <= narrowest <= widest <= 16 pixels",
        )

    def encode(self, labels: NDArray[Any]) -> NDArray[np.float32]:
        """Labels (H, W) to float32 (2, H, W): foreground, border."""
        return self.planes(as_labels(labels))

    def encode_crop(self, labels: NDArray[Any], mirrored: NDArray[Any]) -> NDArray[np.float32]:
        """As `encode`, the border as wide as the areas of the image's own pixels say."""
        return self.planes(as_labels(labels + mirrored), mirrored == 0)

    def planes(self, labels: Labels, real: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """As `encode`, for labels that are checked already; areas are those of the `real` pixels (H, W)."""
        out = np.empty((2, *labels.shape), np.float32)
        np.greater(labels, 0, out=out[0], casting="unsafe")
        out[1] = touching_border(labels, self.width, self.narrowest, self.widest, real)
        return out

    def to_bands(self, raw: torch.Tensor) -> torch.Tensor:
        """Raw (B, 2, H, W) to the probabilities of foreground and border (B, 2, H, W)."""
        return torch.sigmoid(raw.float())
