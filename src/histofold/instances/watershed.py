"""Marker watershed: cores of the instances grow until they fill the foreground."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from histofold.instances.base import Decoder, Labels, Map, Step, Tidy
from histofold.instances.cleanup import components, renumber
from histofold.instances.flood import flood, levels
from histofold.registry import require


class Seeded(NamedTuple):
    """What the first step gives: the map that is flooded, the markers, and the foreground."""

    height: Map
    markers: Labels
    foreground: Map


def grow(seeded: Seeded, threshold: float) -> Labels:
    """Flood from the markers within foreground >= `threshold`; parts of it without a marker become instances too."""
    mask = seeded.foreground >= threshold
    labels = flood(255 - levels(seeded.height), seeded.markers, mask)
    alone = components(mask & (labels == 0))
    # A part that touches a grown instance only by a corner belongs to it as little as one that lies apart.
    alone[alone > 0] += int(labels.max())
    return np.maximum(labels, alone)


@dataclass(frozen=True)
class Watershed(Tidy, Decoder):
    """Foreground minus touching border gives the cores; they grow down that difference within the foreground.

    Args:
        threshold: least foreground of an instance's pixel.
        core: least value of foreground − `border_weight` × border in a core.
        border_weight: how much a border takes away.
        min_core: pixels; smaller cores are no markers.
    """

    name: ClassVar[str] = "watershed"
    threshold: float = 0.5
    core: float = 0.5
    border_weight: float = 1.0
    min_core: int = 3

    def __post_init__(self) -> None:
        self._check_tidy()
        require(0 <= self.threshold <= 1, "instances.threshold", self.threshold, "0 to 1")
        require(0 <= self.core <= 1, "instances.core", self.core, "0 to 1")
        require(self.border_weight >= 0, "instances.border_weight", self.border_weight, "0 or more")
        require(self.min_core >= 0, "instances.min_core", self.min_core, "0 or more pixels")

    @property
    def needs(self) -> tuple[str, ...]:
        """Bands it reads."""
        return ("foreground", "border")

    def steps(self) -> tuple[Step, ...]:
        """Cores, growth, cleaning."""
        return (
            (self._seed, ("border_weight", "core", "min_core")),
            (self._grow, ("threshold",)),
            (self._tidy, ("min_size", "max_hole", "smooth")),
        )

    def _seed(self, bands: dict[str, Map]) -> Seeded:
        height = bands["foreground"] - np.float32(self.border_weight) * bands["border"]
        return Seeded(height, renumber(components(height >= self.core), self.min_core), bands["foreground"])

    def _grow(self, seeded: Seeded) -> Labels:
        return grow(seeded, self.threshold)


