"""Choosing a setting without cheating: on the other folds for each fold, and the interval of what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEW_GROUPS = 3
"""Groups below which an interval means nothing: of one it has no width, of two it is what they score."""

TELLING_GROUPS = 6
"""Groups below which no difference counts as clear: of three, noise looks clear in a fifth of all cases."""

TOO_FEW = "too few groups for an interval"


@dataclass(frozen=True)
class Choice:
    """A setting chosen from a table of scores.

    Attributes:
        best: column chosen on all samples, the one that a submission uses.
        optimistic: mean score of that column on the samples that chose it.
        per_fold: column chosen for each fold on all the other folds.
        scores: (N,) score of each sample under its own fold's column: the honest ones.
        cross_fitted: their mean.
    """

    best: int
    optimistic: float
    per_fold: dict[int, int]
    scores: NDArray[np.float64]
    cross_fitted: float


def best_columns(table: NDArray[np.float64]) -> NDArray[np.int64]:
    """Columns with the highest mean of a (N, K) table."""
    means = table.mean(axis=0)
    return np.flatnonzero(means >= means.max() - 1e-12)


def best_column(table: NDArray[np.float64]) -> int:
    """Column with the highest mean of a (N, K) table; the middle one of equals (a plateau has a safe middle)."""
    equal = best_columns(table)
    return int(equal[len(equal) // 2])


def cross_fit(table: NDArray[np.float64], folds: NDArray[np.int64]) -> Choice:
    """Choose a column of the scores (samples N, settings K) for each fold from the other folds.

    With a single fold there are no others: its setting is chosen on itself and is optimistic, which callers must say.
    """
    scores = np.empty(len(table))
    per_fold: dict[int, int] = {}
    for fold in np.unique(folds):
        own = folds == fold
        others = table[~own] if (~own).any() else table
        per_fold[int(fold)] = best_column(others)
        scores[own] = table[own, per_fold[int(fold)]]
    best = best_column(table)
    return Choice(best, float(table[:, best].mean()), per_fold, scores, float(scores.mean()))


def first_good(
    scores: Sequence[NDArray[np.float64]], groups: NDArray[np.str_], draws: int = 1000, seed: int = 0
) -> int:
    """Index of the first scores that are not clearly worse than the best: 5 % of a bootstrap over groups.

    With fewer than `TELLING_GROUPS` groups nothing is clear, and it is the first.
    """
    best = max(scores, key=np.mean)
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < TELLING_GROUPS:
        return 0
    random = np.random.default_rng(seed)
    picks = random.integers(len(names), size=(draws, len(names)))
    counts = np.bincount(codes, minlength=len(names))[picks].sum(axis=1)
    lost = [np.bincount(codes, weights=best - item, minlength=len(names))[picks].sum(axis=1) for item in scores]
    return next(at for at, sums in enumerate(lost) if np.quantile(sums / counts, 0.05) <= 0)


def interval(
    scores: NDArray[np.float64], groups: NDArray[np.str_], draws: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Bootstrap interval of the mean, drawing whole groups: tiles of one patient or field are not independent.

    None with fewer than `FEW_GROUPS` groups.
    """
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < FEW_GROUPS:
        return None
    sums = np.bincount(codes, weights=scores, minlength=len(names))
    counts = np.bincount(codes, minlength=len(names))
    random = np.random.default_rng(seed)
    picks = random.integers(len(names), size=(draws, len(names)))
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval_text(ends: Sequence[float] | None, between: str = " to ") -> str:
    """An interval for a person, or why there is none."""
    return TOO_FEW if ends is None else f"{ends[0]:.4f}{between}{ends[1]:.4f}"
