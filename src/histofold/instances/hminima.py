"""H-minima watershed of a distance map: Kidney-SegNet's way from regression to instances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from histofold.instances.base import Decoder, Map, Step, Tidy
from histofold.instances.cleanup import Labels, components, with_the_rest
from histofold.instances.flood import flood, levels
from histofold.instances.minima import h_minima, regional_minima
from histofold.registry import require

BACKGROUND = 255
"""Level of the background in the map that is upside down."""


class Basins(NamedTuple):
    """What the first steps give: the filled surface, its minima, and where instances may be; all (H, W)."""

    surface: NDArray[np.uint8]
    markers: Labels
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class HMinima(Tidy, Decoder):
    """The distance map upside down, its shallow minima filled, and flooded from those that are left.

    After Aatresh et al. (2021), with two differences: levels are on a fixed scale (0..1 is 0..255) and not stretched to
    each image, which invents nuclei in empty ones; and touching instances keep the pixels between them unless `lines`
    asks for the authors' gaps. Background is what is below `level`, not the commonest label. A nucleus that is less
    than `depth` deep in all is filled to the background's level and is one instance; with the authors' depth of 7
    below their level of 28 there are none such.

    Args:
        level: 0..255; distances below it are background.
        depth: lambda, 0..255; minima less deep are filled, so that more of it splits less.
        lines: clear the pixels where two instances touch.
    """

    name: ClassVar[str] = "hminima"
    level: int = 32
    depth: int = 40
    lines: bool = False

    def __post_init__(self) -> None:
        self._check_tidy()
        require(1 <= self.level <= 255, "instances.level", self.level, "1 to 255")
        require(1 <= self.depth <= 255, "instances.depth", self.depth, "1 to 255")

    @property
    def needs(self) -> tuple[str, ...]:
        """Bands it reads."""
        return ("distance",)

    def steps(self) -> tuple[Step, ...]:
        """Minima, flood, cleaning."""
        return (
            (self._minima, ("level", "depth")),
            (self._flood, ("lines",)),
            *self._tidy_steps(),
        )

    def _minima(self, bands: dict[str, Map]) -> Basins:
        grey = levels(bands["distance"])
        mask = grey >= self.level
        surface = h_minima(np.where(mask, 255 - grey, BACKGROUND).astype(np.uint8), self.depth)
        return Basins(surface, components(regional_minima(surface) & mask), mask)

    def _flood(self, basins: Basins) -> Labels:
        # Filled nuclei are minima only in an image without any deeper one: others far away must not decide on them.
        filled = basins.mask & (basins.surface == BACKGROUND)
        labels = with_the_rest(flood(basins.surface, basins.markers, basins.mask), filled)
        return clear_lines(labels) if self.lines else labels


def clear_lines(labels: Labels) -> Labels:
    """Set to 0 every pixel that has two different instances within the 3×3 pixels around it."""
    height, width = labels.shape
    beyond = np.iinfo(np.int32).max
    highest = np.zeros((height + 2, width + 2), np.int32)
    highest[1:-1, 1:-1] = labels
    lowest = np.where(highest > 0, highest, beyond)
    windows = [(slice(y, y + height), slice(x, x + width)) for y in range(3) for x in range(3)]
    top = np.maximum.reduce([highest[window] for window in windows])
    bottom = np.minimum.reduce([lowest[window] for window in windows])
    return np.where((bottom < beyond) & (bottom < top), 0, labels).astype(np.int32)
