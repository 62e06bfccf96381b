"""Decoders without any separation: the mask itself, or its connected components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from histofold.instances.base import Decoder, Map, Step, Tidy
from histofold.instances.cleanup import Labels, components
from histofold.registry import require


@dataclass(frozen=True)
class Mask(Decoder):
    """No instances: foreground >= `threshold` is label 1; for competitions that are scored by pixel."""

    name: ClassVar[str] = "none"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        require(0 <= self.threshold <= 1, "instances.threshold", self.threshold, "0 to 1")

    @property
    def needs(self) -> tuple[str, ...]:
        """Bands it reads."""
        return ("foreground",)

    def steps(self) -> tuple[Step, ...]:
        """One comparison."""
        return ((self._mask, ("threshold",)),)

    def _mask(self, bands: dict[str, Map]) -> Labels:
        return (bands["foreground"] >= self.threshold).astype(np.int32)


@dataclass(frozen=True)
class Threshold(Tidy, Decoder):
    """Connected components of foreground >= `threshold`; touching objects stay one."""

    name: ClassVar[str] = "threshold"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        self._check_tidy()
        require(0 <= self.threshold <= 1, "instances.threshold", self.threshold, "0 to 1")

    @property
    def needs(self) -> tuple[str, ...]:
        """Bands it reads."""
        return ("foreground",)

    def steps(self) -> tuple[Step, ...]:
        """Components, cleaning."""
        return ((self._parts, ("threshold",)), *self._tidy_steps())

    def _parts(self, bands: dict[str, Map]) -> Labels:
        return components(bands["foreground"] >= self.threshold)
