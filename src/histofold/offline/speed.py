"""How fast the networks are on the machine at hand, and what they can be run on at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from histofold.errors import ConfigError, ResourceError
from histofold.inference import planning, sized
from histofold.inference.member import Member
from histofold.inference.settings import Settings
from histofold.tiles.grid import reduced


def settle(members: Sequence[Member], settings: Settings, loud: Callable[[str], None]) -> Settings:
    """Settings that one batch went through with: smaller batches, then the CPU where the GPU cannot do it or is none.

    Raises:
        RuntimeError: the CPU cannot do it either.
    """
    settings = there(settings, loud)
    while True:
        device = settings.torch_device()
        try:
            planning.try_out(members, settings)
            return replace(settings, device=str(device))
        except RuntimeError as error:
            # For example a GPU that this build of torch has no kernels for.
            if device.type == "cpu":
                raise
            loud(f"{device} cannot be used ({' '.join(str(error).split())[:200]}); going on with the CPU")
            settings = replace(settings, device="cpu")
        except ResourceError as error:
            if device.type == "cpu":
                raise
            smaller = {"batch": settings.batch // 2} if settings.batch > 1 else {"device": "cpu"}
            settings = replace(settings, **smaller)  # type: ignore[arg-type]
            loud(f"{error}; trying {smaller}")


def there(settings: Settings, loud: Callable[[str], None]) -> Settings:
    """The settings where the device that they name is there; else with one that is, and a loud line.

    A notebook that was given no GPU, or another than the one that was asked for, must not end for that.
    """
    try:
        settings.torch_device()
    except ConfigError as error:
        other = replace(settings, device="auto")
        loud(f"{settings.device} cannot be used ({error}); going on with {other.torch_device()}")
        return other
    return settings


@dataclass
class Speed:
    """Seconds that a sample will take with some views, from one batch that is timed for each number of views.

    Attributes:
        members, settings: as they will be used.
        sparse: whether the samples are slides, of which background is skipped.
        sizes: full-size (height, width) of each sample.
    """

    members: Sequence[Member]
    settings: Settings
    sparse: bool
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    _tiles: dict[str, float] = field(default_factory=dict)

    def seconds(self, sample: str, views: str) -> float:
        """Seconds that a sample will take; 0 for one that cannot be opened."""
        height, width = self.sizes[sample]
        if not height:
            return 0.0
        spec = self.members[0].spec
        scale = spec.scale if spec else 1.0
        small = (reduced(height, scale), reduced(width, scale))
        seen = planning.magnified(small, sized.EXPECTED, self.settings)
        tiles = planning.tile_count(seen, self.members, self.settings)
        computing = tiles * self._tile_seconds(views)
        if not self.sparse:
            return computing
        share = planning.TISSUE if self.settings.skip_background else 1.0
        return max(share * computing, 3 * height * width / planning.DECODED_PER_SECOND)

    def _tile_seconds(self, views: str) -> float:
        if views not in self._tiles:
            self._tiles[views] = planning.try_out(self.members, replace(self.settings, tta=views)).seconds
        return self._tiles[views]
