"""The best setting of a grid for several sets of samples, coarse to fine, and cross-fitted over folds and strata.

A set's choice depends on its own samples alone, also in which settings it gets to see: what another set asked for is
scored, but not offered to it. So a fold's setting owes nothing to the fold.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histofold.evaluation.crossfit import best_columns, first_good

Setting = Mapping[str, Any]
Masks = Mapping[Hashable, NDArray[np.bool_]]
ScoreSettings = Callable[[list[Setting]], NDArray[np.float64]]
"""Settings → scores (samples, settings)."""

FREE = ("min_size",)
"""Options whose values cost next to nothing: all of them are tried at once."""

LEAST = 10
"""Images that a stratum needs in the folds it is tuned on; below that it takes the setting of all."""


@dataclass
class GridSearch:
    """Scores of the settings that were asked for so far.

    Attributes:
        grid: all settings; numbers wherever they differ.
        score: called once for all settings of a step.
        own: a setting of the grid that is tried in any case: what is chosen scores no less than what the user set.
        table: (samples, settings), NaN where a setting was not asked for.
    """

    grid: Sequence[Setting]
    score: ScoreSettings
    own: Setting | None = None
    table: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.places = positions(self.grid)
        self.coarse = np.flatnonzero(coarse(self.places))
        if self.own is not None:
            self.coarse = np.union1d(self.coarse, [self.grid.index(self.own)])
        self.changed = self._changed()
        self.table = self.score([self.grid[int(at)] for at in self.coarse])
        known = self.table
        self.table = np.full((len(known), len(self.grid)), np.nan)
        self.table[:, self.coarse] = known

    def best(self, masks: Masks) -> dict[Hashable, int]:
        """The best setting's index for each set of samples (bool, one a sample): of the coarse grid, then around it.

        Of equals the one that is nearest to the user's own: what changes no score stays as it was set.
        """

        def among(columns: NDArray[np.int64], rows: NDArray[np.bool_]) -> int:
            equal = columns[best_columns(self.table[np.ix_(rows, columns)])]
            nearest = equal[self.changed[equal] == self.changed[equal].min()]
            return int(nearest[len(nearest) // 2])

        offered = dict.fromkeys(masks, self.coarse)
        best = {key: among(self.coarse, rows) for key, rows in masks.items()}
        stride = strides(self.places)
        while (stride > 1).any():
            stride = np.maximum(1, stride // 2)
            offered = {key: np.union1d(offered[key], near(self.places, best[key], stride)) for key in masks}
            self._fill(np.unique(np.concatenate(list(offered.values()))))
            best = {key: among(offered[key], rows) for key, rows in masks.items()}
        return best

    def _changed(self) -> NDArray[np.float64]:
        """How far each setting is from the user's own (settings,): steps on all axes, and 1 for another `FREE` one."""
        if self.own is None:
            return np.zeros(len(self.grid))
        steps = np.abs(self.places - self.places[self.grid.index(self.own)]).sum(axis=1)
        own = self.own
        return steps + [sum(setting.get(name) != own.get(name) for name in FREE) for setting in self.grid]

    def _fill(self, columns: NDArray[np.int64]) -> None:
        new = columns[np.isnan(self.table[:, columns]).any(axis=0)]
        if len(new):
            self.table[:, new] = self.score([self.grid[int(at)] for at in new])


def positions(grid: Sequence[Setting]) -> NDArray[np.float64]:
    """Place of every setting on each axis that varies, counted in steps of the axis (settings, axes)."""
    axes = [name for name in grid[0] if name not in FREE and len({setting[name] for setting in grid}) > 1]
    places = np.zeros((len(grid), len(axes)))
    for number, name in enumerate(axes):
        values = sorted({setting[name] for setting in grid})
        # A value that a user added between two others belongs to few settings and is no step of its own.
        counts = [sum(setting[name] == value for setting in grid) for value in values]
        steps = [value for value, count in zip(values, counts, strict=True) if 2 * count >= max(counts)]
        places[:, number] = np.interp([setting[name] for setting in grid], steps, np.arange(len(steps)))
    return places


def strides(places: NDArray[np.float64]) -> NDArray[np.int64]:
    """Steps between the coarse settings on each axis: 1 where there are two values, 4 from nine on, else 2."""
    longest = places.max(axis=0, initial=0.0)
    return np.select([longest < 2, longest < 8], [1, 2], 4)


def coarse(places: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The settings that are tried first, and whatever lies between steps."""
    between = (places % 1 != 0).any(axis=1)
    return (places % strides(places) == 0).all(axis=1) | between


def near(places: NDArray[np.float64], at: int, stride: NDArray[np.int64]) -> NDArray[np.int64]:
    """Settings that lie on every axis at most `stride` from a setting, and on the lattice of that stride."""
    close = (np.abs(places - places[at]) <= stride).all(axis=1)
    return np.flatnonzero(close & (places % stride == 0).all(axis=1))


def sparse(grid: Sequence[Setting], around: Setting) -> list[Setting]:
    """`around` with the coarse values of those options that have at least three of them: a handful."""
    some = [grid[int(at)] for at in np.flatnonzero(coarse(positions(grid)))]
    values = {name: sorted({setting[name] for setting in some}) for name in grid[0] if name not in FREE}
    several = {name: tried for name, tried in values.items() if len(tried) >= 3}
    return [{**around, **dict(zip(several, chosen, strict=True))} for chosen in product(*several.values())]


@dataclass(frozen=True)
class Choices:
    """Settings chosen for all samples and, where that was asked for, for each stratum.

    Attributes:
        best: index of the setting chosen on all samples.
        strata: stratum → index of the setting chosen on all of its samples.
        own: (N,) index of the setting that each sample's fold was given by the other folds.
        scores: (N,) honest scores under `own`.
        optimistic: mean score of the final settings on the samples that chose them.
    """

    best: int
    strata: dict[str, int]
    own: NDArray[np.int64]
    scores: NDArray[np.float64]
    optimistic: float

    @property
    def cross_fitted(self) -> float:
        """Mean honest score."""
        return float(self.scores.mean())


def choose(
    search: GridSearch,
    folds: NDArray[np.int64],
    strata: NDArray[np.str_],
    per_stratum: bool = False,
    among: NDArray[np.bool_] | None = None,
) -> Choices:
    """Choose a setting for all samples, or one a stratum; for each fold on the other folds.

    A stratum with fewer than `LEAST` samples in the folds that choose takes what all samples chose there. With a single
    fold there are no others: it chooses for itself, which callers must say.

    Args:
        among: samples (N,) that have a part in it; the others get the setting that these chose together.
    """
    names = [str(name) for name in np.unique(strata)] if per_stratum else []
    everything = np.ones(len(folds), np.bool_) if among is None else among
    present = np.unique(folds[everything])
    several = len(present) > 1
    chosen_on: dict[Hashable, NDArray[np.bool_]] = {None: everything}
    chosen_on |= {int(fold): everything & (folds != fold if several else folds == fold) for fold in present}
    masks = dict(chosen_on)
    for key, rows in chosen_on.items():
        for name in names:
            inside = rows & (strata == name)
            if inside.sum() >= LEAST:
                masks[(key, name)] = inside
    best = search.best(masks)
    own = np.array(
        [
            best.get((int(fold), str(name)), best.get(int(fold), best[None]))
            for fold, name in zip(folds, strata, strict=True)
        ],
        np.int64,
    )
    kept = {name: best[(None, name)] for name in names if (None, name) in best}
    final = np.array([kept.get(str(name), best[None]) for name in strata], np.int64)
    each = np.arange(len(folds))
    return Choices(best[None], kept, own, search.table[each, own], float(search.table[each, final].mean()))


def choose_strata(
    search: GridSearch,
    folds: NDArray[np.int64],
    strata: NDArray[np.str_],
    groups: NDArray[np.str_],
    one: Choices,
) -> tuple[Choices, Choices]:
    """Settings for strata where they are clearly better cross-fitted than `one` for all, as the other folds see it.

    Clearly: beyond what drawing other `groups` could change (`first_good`). Few images tune each stratum, and a gain
    within the noise is often one by chance: on 98 fields of glomeruli it cost .009 of Dice.

    For a fold it is decided by the others, each of them judged by settings that neither it nor the fold chose. With two
    folds nobody is left to choose those: their samples keep `one`. A single fold cannot judge at all and keeps `one`.

    Returns:
        what is kept, and the settings for strata that it was compared with.
    """
    finer = choose(search, folds, strata, per_stratum=True)
    given = np.zeros(len(folds), np.bool_)
    names = np.unique(folds)
    if len(names) < 2:
        return one, finer
    for fold in names if len(names) > 2 else ():
        others = folds != fold
        single, several = (choose(search, folds, strata, kind, others) for kind in (False, True))
        given[~others] = first_good([single.scores[others], several.scores[others]], groups[others]) == 1
    better = finer if first_good([one.scores, finer.scores], groups) == 1 else one
    own = np.where(given, finer.own, one.own)
    return replace(better, own=own, scores=np.where(given, finer.scores, one.scores)), finer
