"""`foreground`: is the pixel part of any object?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from histofold.targets.base import Band, Target, as_labels


@dataclass(frozen=True)
class Foreground(Target):
    """One sigmoid channel: 1 on every object, 0 elsewhere; also right for masks of 0 and 1."""

    name: ClassVar[str] = "foreground"
    channels: int = field(default=1, init=False, repr=False)
    bands: tuple[Band, ...] = field(default=(Band("foreground"),), init=False, repr=False)
    activation: str = field(default="sigmoid", init=False, repr=False)
    default_loss: dict[str, float] = field(
        default_factory=lambda: {"bce": 1.0, "dice": 1.0}, init=False, repr=False, compare=False
    )

    def encode(self, labels: NDArray[Any]) -> NDArray[np.float32]:
        """Labels (H, W) to float32 (1, H, W) of 0 and 1."""
        return (as_labels(labels) > 0).astype(np.float32)[None]

    def to_bands(self, raw: torch.Tensor) -> torch.Tensor:
        """Raw (B, 1, H, W) to the probability of foreground (B, 1, H, W)."""
        return torch.sigmoid(raw.float())
