"""What makes a run what it is: the settings that a run is compared by, when it goes on and when another repeats it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from histofold.config import FREE
from histofold.options import AugmentOptions
from histofold.workspace import fold_set_named

IDENTITY = ("model", "target", "loss", "augment", "optimizer", "prepare", "train", "seed", "folds")
"""The sections that make a run what it is, beside the competition."""


def _as_read(options: dict[str, Any]) -> dict[str, Any]:
    """Options as YAML reads them: it knows no tuples, and a list equals none."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}


BEFORE: dict[str, dict[str, Any]] = {
    "augment": _as_read(asdict(AugmentOptions())),
    "train": {"even_strata": 0, "start": None},
}
"""Values of settings that runs from before these settings existed lack."""


def completed(section: str, content: dict[str, Any]) -> dict[str, Any]:
    """A saved section with what it did not know yet: before an option existed, runs did what its default does."""
    return {**BEFORE.get(section, {}), **content}


def identity(values: Any) -> dict[str, Any]:
    """The settings that make a run what it is, flattened: what differs here makes another run."""
    kept = {key: values.get(key) for key in IDENTITY}
    kept["folds"] = fold_set_named(kept["folds"])  # `all` is another word for the default set
    kept["competition"] = (values.get("competition") or {}).get("name")
    flat: dict[str, Any] = {}
    for section, content in kept.items():
        if not isinstance(content, dict):
            flat[section] = content
            continue
        for key, value in completed(section, content).items():
            if key not in FREE.get(section, ()):
                flat[f"{section}.{key}"] = value
    return flat


def difference(one: Any, other: Any) -> tuple[str, Any, Any] | None:
    """The first setting in which two saved configurations are different runs, with both values; None where none is."""
    first, second = identity(one), identity(other)
    for key in sorted(set(first) | set(second)):
        if first.get(key) == second.get(key) or (key == "train.start" and _own_start(one) == _own_start(other)):
            continue
        return key, first.get(key), second.get(key)
    return None


def _own_start(values: Any) -> str:
    """`train.start` without the number of the fold: folds that begin with their own fold of another run begin alike."""
    start = (values.get("train") or {}).get("start")
    return str(start).replace(f"/fold{values.get('fold')}/", "/fold/")
