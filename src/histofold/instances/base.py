"""What a decoder is: a chain of steps from bands to labels, each with its own options, so that tuning shares them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from histofold.errors import DataError
from histofold.instances.cleanup import Labels, mend, renumber
from histofold.registry import require

Map = NDArray[np.float32]
Bands = Mapping[str, Map]
"""(H, W) by name, none beyond 1, as `BandFile.read` gives them (`Band.relative`)."""
Step = tuple[Callable[[Any], Any], tuple[str, ...]]
"""A function of what the step before gave (the first: the bands), and the names of the options that it reads."""


class Decoder(ABC):
    """From bands to instances: `decoder(bands)` gives int32 labels (H, W), 0 background, 1..n without gaps.

    A decoder is a frozen dataclass of its options. Its work is a chain of steps; each names the options it depends on,
    so that a search runs a step once for all settings that agree up to there.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def needs(self) -> tuple[str, ...]:
        """Names of the bands it reads."""

    @abstractmethod
    def steps(self) -> tuple[Step, ...]:
        """Its chain, in order."""

    def __call__(self, bands: Bands) -> Labels:
        """Decode bands, each float (H, W).

        Raises:
            DataError: a band is missing, or their sizes differ.
        """
        value: Any = select(bands, self.needs)
        for function, _ in self.steps():
            value = function(value)
        return np.asarray(value, np.int32)

    def options(self) -> dict[str, Any]:
        """Its options and their values."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.init}  # type: ignore[arg-type]


def select(bands: Bands, needs: tuple[str, ...]) -> dict[str, Map]:
    """Pick the bands that a decoder reads, as contiguous float32.

    Raises:
        DataError: a band is missing, is no image, or has another size than the first.
    """
    for name in needs:
        if name not in bands:
            raise DataError(f"instances: band `{name}` is needed, found {', '.join(bands)}; choose another instances=")
    maps = {name: np.ascontiguousarray(bands[name], np.float32) for name in needs}
    shapes = {value.shape for value in maps.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise DataError(f"instances: expected bands of one size (height, width), found {sorted(shapes)}")
    return maps


@dataclass(frozen=True)
class Tidy:
    """Options that every decoder has for the labels it found.

    Args:
        min_size: pixels; smaller instances are dropped.
        max_hole: pixels; holes within one instance up to this size are filled.
        smooth: passes of a 3×3 majority vote over the outlines.
    """

    min_size: int = 10
    max_hole: int = 10000
    smooth: int = 0

    def _check_tidy(self) -> None:
        require(self.min_size >= 0, "instances.min_size", self.min_size, "0 or more pixels")
        require(self.max_hole >= 0, "instances.max_hole", self.max_hole, "0 or more pixels")
        require(0 <= self.smooth <= 10, "instances.smooth", self.smooth, "0 to 10 passes")

    def _tidy_steps(self) -> tuple[Step, ...]:
        return (self._mend, ("smooth", "max_hole")), (self._drop, ("min_size",))

    def _mend(self, labels: Labels) -> Labels:
        return mend(labels, self.max_hole, self.smooth)

    def _drop(self, labels: Labels) -> Labels:
        return renumber(labels, self.min_size)
