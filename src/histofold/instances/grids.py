"""The settings that tuning tries for each decoder: few values of each option that matters, all combinations.

Options are listed in the order of the decoder's steps, so that neighbours in the list share the early ones.

What is in no grid stays as it is set. `smooth` and `max_hole` come after the flood, so that each value of theirs would
mend and score all label images once more, twice the time for two values; so does `relative`, which changes only what a
low threshold lets in. `components.rule` (and `collision`) belongs to a form of the target, `hminima.lines` to the
authors' output, and the flow's walk to what it learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

Settings = list[dict[str, Any]]

_LEVELS = tuple(step / 20 for step in range(2, 18))  # .1 to .85
"""As wide as real data asked for: glomeruli that are to be found want .15, nuclei scored at high IoU .75 to .8."""
_SIZES = (5, 10, 20, 40)


def _all(**values: Sequence[Any]) -> Settings:
    return [dict(zip(values, choice, strict=True)) for choice in product(*values.values())]


_CORES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_DISTANCE = {"core": _CORES, "min_core": (1, 5), "threshold": _LEVELS, "min_size": _SIZES}

GRIDS: dict[str, Callable[[], Settings]] = {
    "none": lambda: _all(threshold=_LEVELS),
    "threshold": lambda: _all(threshold=_LEVELS, min_size=_SIZES),
    "components": lambda: _all(core=_LEVELS, min_core=(1, 5), dilation=(0, 1, 2), min_size=_SIZES),
    "watershed": lambda: _all(
        border_weight=(0.5, 1.0),
        core=_CORES,
        min_core=(1, 5),
        threshold=_LEVELS,
        min_size=_SIZES,
    ),
    "watershed_inside": lambda: _all(core=_LEVELS, min_core=(1, 5), threshold=_LEVELS, min_size=_SIZES),
    "watershed_distance": lambda: _all(**_DISTANCE),
    "flow": lambda: _all(threshold=_LEVELS, merge=(0, 1, 2, 3), min_support=(5, 10, 20), min_size=_SIZES),
    "hminima": lambda: _all(
        depth=(5, 10, 15, 20, 30, 40, 60), level=(2, 4, 8, 12, 16, 24, 32, 40, 48), min_size=_SIZES
    ),
}

WITH_BORDER: dict[str, Callable[[], Settings]] = {
    # The border's weight costs half as much again, as small cores are tried without it only.
    "watershed_distance": lambda: [
        *_all(border_weight=(0.0,), **_DISTANCE),
        *_all(border_weight=(0.5,), **{**_DISTANCE, "min_core": (1,)}),
    ],
}
"""Decoders whose grid is another one where there is a band `border`, which they can do without."""
