"""Runs that differ in their seed or their fold set only: their spread is the noise that other differences must beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from histofold.config import FREE
from histofold.files import digest
from histofold.identity import completed

SAME = ("competition", "model", "target", "loss", "augment", "optimizer", "prepare", "train")
"""Settings that two runs share when one repeats the other."""

VARIED = {**FREE, "prepare": (*FREE["prepare"], "fold_seed")}
"""Those of them that may differ: they change nothing, or make another fold set."""


def alike(configs: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Names of runs that repeat one another, at least two together, in the order given.

    Args:
        configs: run → its saved configuration.
    """
    kinds: dict[str, list[str]] = {}
    for name, config in configs.items():
        kinds.setdefault(digest({key: _shared(key, config.get(key)) for key in SAME}), []).append(name)
    return [names for names in kinds.values() if len(names) > 1]


def _shared(section: str, values: Any) -> Any:
    varied = VARIED.get(section, ())
    if not isinstance(values, Mapping):
        return values
    return {key: each for key, each in completed(section, dict(values)).items() if key not in varied}
