"""Marker watershed: cores of the instances grow until they fill the foreground."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from histofold.instances.base import Decoder, Map, Step, Tidy
from histofold.instances.cleanup import Labels, components, cut_below, renumber, with_the_rest
from histofold.instances.flood import flood, levels
from histofold.registry import require


class Seeded(NamedTuple):
    """What the first step gives: the map that is flooded from its heights down, the markers, the foreground."""

    height: Map
    markers: Labels
    foreground: Map


class Grown(NamedTuple):
    """What the second step gives: the instances and the foreground that they lie in."""

    labels: Labels
    foreground: Map


@dataclass(frozen=True)
class _Watershed(Tidy, Decoder):
    """What the marker watersheds share.

    A network that is unsure of an object draws all of it faintly. One threshold for all objects either misses the faint
    ones or draws the others too wide; so a low one finds, and `relative` gives each object an outline of its own.

    Args:
        threshold: least foreground of an instance's pixel.
        relative: least foreground of an instance's pixel as a share of the instance's highest; 0: none.
        core: least height of a core.
        min_core: pixels; smaller cores are no markers.
    """

    threshold: float = 0.5
    relative: float = 0.0
    core: float = 0.5
    min_core: int = 1

    def __post_init__(self) -> None:
        self._check_tidy()
        require(0 <= self.threshold <= 1, "instances.threshold", self.threshold, "0 to 1")
        require(0 <= self.relative <= 1, "instances.relative", self.relative, "0 to 1")
        require(0 <= self.core <= 1, "instances.core", self.core, "0 to 1")
        require(self.min_core >= 0, "instances.min_core", self.min_core, "0 or more pixels")

    def steps(self) -> tuple[Step, ...]:
        """Cores, growth, each instance's own outline, cleaning."""
        return (
            (self._seed, self._seed_options()),
            (self._grow, ("threshold",)),
            (self._cut, ("relative",)),
            *self._tidy_steps(),
        )

    def _seed_options(self) -> tuple[str, ...]:
        return ("core", "min_core")

    def _height(self, bands: dict[str, Map]) -> Map:
        raise NotImplementedError

    def _seed(self, bands: dict[str, Map]) -> Seeded:
        height = self._height(bands)
        # A core outside the foreground could not grow, and would be lost or found depending on the next step.
        return Seeded(height, renumber(components(height >= self.core), self.min_core), bands["foreground"])

    def _grow(self, seeded: Seeded) -> Grown:
        """Flood from the markers within the foreground; parts of it without a marker become instances, too."""
        mask = seeded.foreground >= self.threshold
        labels = with_the_rest(flood(255 - levels(seeded.height), seeded.markers, mask), mask)
        return Grown(labels, seeded.foreground)

    def _cut(self, grown: Grown) -> Labels:
        return cut_below(grown.labels, grown.foreground, self.relative) if self.relative > 0 else grown.labels


@dataclass(frozen=True)
class Watershed(_Watershed):
    """Foreground minus touching border gives the cores; they grow down that difference within the foreground.

    Args:
        threshold: least foreground of an instance's pixel.
        relative: least foreground of an instance's pixel as a share of the instance's highest; 0: none.
        core: least value of foreground − `border_weight` × border in a core.
        min_core: pixels; smaller cores are no markers.
        border_weight: how much a border takes away.
    """

    name: ClassVar[str] = "watershed"
    border_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.border_weight >= 0, "instances.border_weight", self.border_weight, "0 or more")

    @property
    def needs(self) -> tuple[str, ...]:
        """Bands it reads."""
        return ("foreground", "border")

    def _seed_options(self) -> tuple[str, ...]:
        return ("border_weight", *super()._seed_options())

    def _height(self, bands: dict[str, Map]) -> Map:
        return bands["foreground"] - np.float32(self.border_weight) * bands["border"]


@dataclass(frozen=True)
class InsideWatershed(_Watershed):
    """Ternary's inside gives the cores; they grow down it within the foreground, so that outlines are the network's."""

    name: ClassVar[str] = "watershed_inside"

    @property
    def needs(self) -> tuple[str, ...]:
        """Bands it reads."""
        return ("foreground", "inside")

    def _height(self, bands: dict[str, Map]) -> Map:
        return bands["inside"]


@dataclass(frozen=True)
class DistanceWatershed(_Watershed):
    """The normalised distance, less the touching border where there is one, gives the cores.

    Args:
        threshold: least foreground of an instance's pixel.
        relative: least foreground of an instance's pixel as a share of the instance's highest; 0: none.
        core: least value of distance − `border_weight` × border in a core; the deepest pixels have distance 1.
        min_core: pixels; smaller cores are no markers.
        border_weight: how much a border takes away; 0: the border band is not read.
    """

    name: ClassVar[str] = "watershed_distance"
    border_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.border_weight >= 0, "instances.border_weight", self.border_weight, "0 or more")

    @property
    def needs(self) -> tuple[str, ...]:
        """Bands it reads."""
        return ("foreground", "distance", "border") if self.border_weight > 0 else ("foreground", "distance")

    def _seed_options(self) -> tuple[str, ...]:
        return ("border_weight", *super()._seed_options())

    def _height(self, bands: dict[str, Map]) -> Map:
        if self.border_weight == 0:
            return bands["distance"]
        return bands["distance"] - np.float32(self.border_weight) * bands["border"]
