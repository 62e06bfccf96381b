"""The settings that tuning tries for each decoder: few values of each option that matters, all combinations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any


def _all(**values: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(zip(values, choice, strict=True)) for choice in product(*values.values())]


def _mask() -> list[dict[str, Any]]:
    return _all(threshold=[0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7])


def _threshold() -> list[dict[str, Any]]:
    return _all(threshold=[0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7], min_size=[5, 10, 20, 40])


def _watershed() -> list[dict[str, Any]]:
    return _all(
        border_weight=[0.5, 1.0],
        core=[0.3, 0.4, 0.5, 0.6, 0.7],
        min_core=[3],
        threshold=[0.4, 0.45, 0.5, 0.55, 0.6],
        min_size=[5, 10, 20, 40],
    )


GRIDS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "none": _mask,
    "threshold": _threshold,
    "watershed": _watershed,
}
