"""Decoders by name: from the bands of a target to a label image.

Example:
    >>> decoder = build("watershed", threshold=0.45, min_size=20)
    >>> decoder.needs
    ('foreground', 'border')
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from histofold.instances.base import Decoder
from histofold.instances.components import Components
from histofold.instances.flow import Follow
from histofold.instances.grids import GRIDS, WITH_BORDER
from histofold.instances.hminima import HMinima
from histofold.instances.threshold import Mask, Threshold
from histofold.instances.watershed import DistanceWatershed, InsideWatershed, Watershed
from histofold.registry import Registry

__all__ = ["Decoder", "build", "default_for", "grid", "names", "options", "resolve"]

_CLASSES: tuple[type[Decoder], ...] = (
    Mask, Threshold, Components, Watershed, InsideWatershed, DistanceWatershed, HMinima, Follow,
)  # fmt: skip
REGISTRY: Registry[Decoder] = Registry("instances", {cls.name: cls for cls in _CLASSES})

_DEFAULTS = (
    ("distance", "watershed_distance"),
    ("border", "watershed"),
    ("inside", "watershed_inside"),
    ("flow_y", "flow"),
)
"""Band → decoder; the first band that is there decides. Distance before border: better out of fold (bench ablation)."""


RETIRED: Mapping[str, tuple[str, ...]] = {"watershed_distance": ("top",), "hminima": ("top",)}
"""Options that ensembles from before still name; `top` was the value of the deepest pixels, which is now always 1."""


def build(name: str, **options: Any) -> Decoder:
    """Make the decoder of a name; options of an earlier version that mean nothing any more are left out.

    Raises:
        ConfigError: unknown name or option, or a value of the wrong type or out of range.
    """
    retired = RETIRED.get(name, ())
    return REGISTRY.build(name, **{key: value for key, value in options.items() if key not in retired})


def names() -> list[str]:
    """All names, sorted."""
    return REGISTRY.names()


def options(name: str) -> dict[str, inspect.Parameter]:
    """Options of a decoder with their defaults."""
    return REGISTRY.options(name)


def default_for(bands: Iterable[str]) -> str:
    """Name of the decoder that suits the bands that are there."""
    there = set(bands)
    for band, name in _DEFAULTS:
        if band in there:
            return name
    return "threshold"


def resolve(settings: Mapping[str, Any], bands: Iterable[str]) -> Decoder:
    """Make the decoder of a config group's settings (`name` and options); the name `auto` takes `default_for(bands)`.

    Raises:
        ConfigError: as in `build`.
    """
    rest = {key: value for key, value in settings.items() if key != "name"}
    name = str(settings.get("name", "auto"))
    return build(default_for(bands) if name == "auto" else name, **rest)


def grid(name: str, bands: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Settings of a decoder that tuning tries, as option dicts; some only where `bands` are there.

    Raises:
        ConfigError: unknown name.
    """
    REGISTRY.find(name)
    return WITH_BORDER[name]() if name in WITH_BORDER and "border" in bands else GRIDS[name]()
