"""Components of the inside, dilated by a disc: FullNet's way from the ternary target to instances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from histofold.errors import ConfigError
from histofold.instances.base import Decoder, Map, Step, Tidy
from histofold.instances.cleanup import Labels, components, renumber
from histofold.instances.dilation import dilate
from histofold.registry import require


@dataclass(frozen=True)
class Components(Tidy, Decoder):
    """Connected components of the inside, small ones dropped, each dilated by a disc.

    FullNet's own settings (Qu et al., MICCAI 2019): `rule=argmax min_core=20 dilation=2 collision=higher` for nuclei,
    `min_core=100 dilation=4` for glands, whose core was measured at 1/2.2 of the size and dilated at full size
    (experiment=fullnet_glas: both at the smaller one); no holes filled, no minimum size afterwards.

    Args:
        rule: `threshold`: inside >= `core`; `argmax`: inside is the likeliest of the three classes.
        core: least inside, for `rule=threshold`.
        min_core: pixels; smaller components are dropped before the dilation.
        dilation: radius of the disc in pixels.
        collision: `nearest` instance wins a pixel, or the `higher` label (the authors').
    """

    name: ClassVar[str] = "components"
    rule: str = "threshold"
    core: float = 0.5
    min_core: int = 1
    dilation: int = 1
    collision: str = "nearest"

    def __post_init__(self) -> None:
        self._check_tidy()
        if self.rule not in ("threshold", "argmax"):
            raise ConfigError(f"instances.rule={self.rule!r}: expected threshold or argmax")
        if self.collision not in ("nearest", "higher"):
            raise ConfigError(f"instances.collision={self.collision!r}: expected nearest or higher")
        require(0 <= self.core <= 1, "instances.core", self.core, "0 to 1")
        require(self.min_core >= 0, "instances.min_core", self.min_core, "0 or more pixels")
        require(0 <= self.dilation <= 32, "instances.dilation", self.dilation, "0 to 32 pixels")

    @property
    def needs(self) -> tuple[str, ...]:
        """Bands it reads."""
        return ("foreground", "inside", "boundary") if self.rule == "argmax" else ("inside",)

    def steps(self) -> tuple[Step, ...]:
        """Components, dilation, cleaning."""
        return (
            (self._cores, ("rule", "core", "min_core")),
            (self._dilate, ("dilation", "collision")),
            *self._tidy_steps(),
        )

    def _cores(self, bands: dict[str, Map]) -> Labels:
        inside = bands["inside"]
        if self.rule == "argmax":
            # The first of equals wins an argmax, and inside comes before boundary and after background.
            mask = (inside > 1 - bands["foreground"]) & (inside >= bands["boundary"])
        else:
            mask = inside >= np.float32(self.core)
        return renumber(components(mask), self.min_core)

    def _dilate(self, labels: Labels) -> Labels:
        return dilate(labels, self.dilation, self.collision == "higher")
