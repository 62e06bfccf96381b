"""Targets by name: labels → what a network learns → named bands.

Example:
    >>> target = build("border", width=0.2)
    >>> [band.name for band in target.bands]
    ['foreground', 'border']
"""

from __future__ import annotations

import inspect
from typing import Any

from histofold.registry import Registry
from histofold.targets.base import Band, Target
from histofold.targets.border import Border
from histofold.targets.distance import BorderDistance, Distance
from histofold.targets.flow import Flow
from histofold.targets.foreground import Foreground
from histofold.targets.ternary import Ternary

__all__ = ["Band", "Target", "build", "names", "options"]

_CLASSES: tuple[type[Target], ...] = (Foreground, Ternary, Border, Distance, BorderDistance, Flow)
REGISTRY: Registry[Target] = Registry("target", {cls.name: cls for cls in _CLASSES})


def build(name: str, **options: Any) -> Target:
    """Make the target of a name.

    Raises:
        ConfigError: unknown name or option, or a value of the wrong type or out of range.
    """
    return REGISTRY.build(name, **options)


def names() -> list[str]:
    """All names, sorted."""
    return REGISTRY.names()


def options(name: str) -> dict[str, inspect.Parameter]:
    """Options of a target with their defaults."""
    return REGISTRY.options(name)
