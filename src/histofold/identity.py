"""What makes a run what it is: the settings that a run is compared by, when it goes on and when another repeats it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from histofold.config import FREE
from histofold.tiles.augment import AugmentOptions

IDENTITY = ("model", "target", "loss", "augment", "optimizer", "prepare", "train", "seed", "folds")
"""The sections that make a run what it is, beside the competition."""

BEFORE: dict[str, dict[str, Any]] = {"augment": asdict(AugmentOptions()), "train": {"even_strata": 0, "start": None}}
"""Values of settings that runs from before these settings existed lack."""


def completed(section: str, content: dict[str, Any]) -> dict[str, Any]:
    """A saved section with what it did not know yet: before an option existed, runs did what its default does."""
    return {**BEFORE.get(section, {}), **content}


def identity(values: Any) -> dict[str, Any]:
    """The settings that make a run what it is, flattened: what differs here makes another run."""
    kept = {key: values[key] for key in IDENTITY}
    kept["competition"] = values["competition"]["name"]
    flat: dict[str, Any] = {}
    for section, content in kept.items():
        if not isinstance(content, dict):
            flat[section] = content
            continue
        for key, value in completed(section, content).items():
            if key not in FREE.get(section, ()):
                flat[f"{section}.{key}"] = value
    return flat
