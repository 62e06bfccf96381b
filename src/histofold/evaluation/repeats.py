"""Runs that differ in their seed or their fold set only: their spread is the noise that other differences must beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from histofold.files import digest

SAME = ("competition", "model", "target", "loss", "augment", "optimizer", "prepare", "train")
"""Settings that two runs share when one repeats the other."""


def alike(configs: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Names of runs that repeat one another, at least two together, in the order given.

    Args:
        configs: run → its saved configuration.
    """
    kinds: dict[str, list[str]] = {}
    for name, config in configs.items():
        kinds.setdefault(digest({key: config.get(key) for key in SAME}), []).append(name)
    return [names for names in kinds.values() if len(names) > 1]
