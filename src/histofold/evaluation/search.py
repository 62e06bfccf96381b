"""Which members and which weights: searched on OOF predictions, for each fold on the other folds.

Weights live on a lattice and every distinct vector is scored once for all samples, so that the searches of all folds
share their work: a fold's own samples are scored along, but only the others' scores are looked at. What a fold is given
can therefore not depend on its own truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from histofold.evaluation.crossfit import best_column

Weights = tuple[float, ...]
"""One weight a run, summing to 1."""

Table = NDArray[np.float64]
"""Scores (samples, settings) of one weight vector; settings are thresholds or decoder settings."""

Rows = NDArray[np.bool_]

ROUNDS = 12
"""Members that greedy selection draws at most, with replacement (Caruana et al. 2004)."""

STEPS = (0.25, 0.1)
"""Share of the weight that the climb moves from one member to another, coarse to fine."""

GAIN = 1e-5
"""A change must be worth more than this, else the search would walk along a plateau."""


class Objective:
    """Scores weight vectors, each one once.

    Args:
        score: many weight vectors in one pass over the samples → their tables.
    """

    def __init__(self, score: Callable[[list[Weights]], list[Table]]) -> None:
        self._score = score
        self._known: dict[Weights, Table] = {}

    def tables(self, candidates: Sequence[Weights]) -> list[Table]:
        """The table of each candidate."""
        fresh = list(dict.fromkeys(weights for weights in candidates if weights not in self._known))
        if fresh:
            self._known.update(zip(fresh, self._score(fresh), strict=True))
        return [self._known[weights] for weights in candidates]

    def best(self, candidates: Sequence[Weights], rows: Rows) -> tuple[Weights, float]:
        """The candidate whose best setting has the highest mean over `rows`; the first of equals."""
        values = [float(table[rows].mean(axis=0).max()) for table in self.tables(candidates)]
        chosen = int(np.argmax(values))
        return candidates[chosen], values[chosen]


def normalised(values: Sequence[float]) -> Weights:
    """Scale to a sum of 1, rounded so that equal vectors compare equal."""
    total = sum(values)
    return tuple(round(value / total, 6) for value in values)


def equal(objective: Objective, rows: Rows, count: int) -> Weights:
    """Every member the same: the choice that cannot overfit."""
    return normalised([1.0] * count)


def greedy(objective: Objective, rows: Rows, count: int) -> Weights:
    """Forward selection with replacement: begin with the best member, add whichever helps most, stop when none does."""
    picks = [0] * count
    best: Weights = ()
    value = -np.inf
    for _ in range(ROUNDS):
        candidates = [
            normalised([pick + (index == member) for index, pick in enumerate(picks)]) for member in range(count)
        ]
        found, gained = objective.best(candidates, rows)
        if gained <= value + GAIN:
            break
        best, value = found, gained
        picks[candidates.index(found)] += 1
    return best


def climb(objective: Objective, rows: Rows, count: int) -> Weights:
    """Direct optimisation of the metric: from equal weights, move weight between two members while it helps."""
    weights = equal(objective, rows, count)
    _, value = objective.best([weights], rows)
    for step in STEPS:
        while True:
            candidates = _neighbours(weights, step)
            if not candidates:
                break
            found, gained = objective.best(candidates, rows)
            if gained <= value + GAIN:
                break
            weights, value = found, gained
    return weights


def _neighbours(weights: Weights, step: float) -> list[Weights]:
    moved = []
    for giver, taker in permutations(range(len(weights)), 2):
        amount = min(step, weights[giver])
        if amount > 1e-6:
            changed = list(weights)
            changed[giver] -= amount
            changed[taker] += amount
            moved.append(normalised(changed))
    return moved


STRATEGIES: dict[str, Callable[[Objective, Rows, int], Weights]] = {"equal": equal, "greedy": greedy, "optimise": climb}
"""Searches by their name in `evaluate.search`, simplest first."""


@dataclass(frozen=True)
class Found:
    """What a search gave.

    Attributes:
        strategy: its name.
        weights, column: chosen on all samples; what a submission uses.
        per_fold: (weights, column) chosen for each fold on the others.
        scores: (N,) honest score of each sample.
        optimistic: mean score of the final choice on the samples that chose it.
    """

    strategy: str
    weights: Weights
    column: int
    per_fold: dict[int, tuple[Weights, int]]
    scores: NDArray[np.float64]
    optimistic: float

    @property
    def cross_fitted(self) -> float:
        """Mean honest score."""
        return float(self.scores.mean())

    @property
    def size(self) -> int:
        """Members with a weight."""
        return sum(weight > 0 for weight in self.weights)


def search(strategy: str, objective: Objective, folds: NDArray[np.int64], count: int) -> Found:
    """Run one strategy on all samples, and for each fold on the others."""
    choose = STRATEGIES[strategy]
    everything = np.ones(len(folds), np.bool_)
    weights = choose(objective, everything, count)
    table = objective.tables([weights])[0]
    column = best_column(table)
    per_fold: dict[int, tuple[Weights, int]] = {}
    scores = np.empty(len(folds))
    for fold in np.unique(folds):
        own = folds == fold
        others = ~own if (~own).any() else own
        mine = choose(objective, others, count)
        found = objective.tables([mine])[0]
        per_fold[int(fold)] = (mine, best_column(found[others]))
        scores[own] = found[own, per_fold[int(fold)][1]]
    return Found(strategy, weights, column, per_fold, scores, float(table[:, column].mean()))


def simplest(found: Sequence[Found], groups: NDArray[np.str_], draws: int = 1000, seed: int = 0) -> Found:
    """The simplest result that is not clearly worse than the best: bootstrap over groups of the paired difference.

    Simpler is what comes earlier in `STRATEGIES`: equal weights before searched ones.
    """
    best = max(found, key=lambda item: item.cross_fitted)
    names, codes = np.unique(groups, return_inverse=True)
    random = np.random.default_rng(seed)
    picks = random.integers(len(names), size=(draws, len(names)))
    counts = np.bincount(codes, minlength=len(names))[picks].sum(axis=1)
    order = list(STRATEGIES)
    for item in sorted(found, key=lambda candidate: (order.index(candidate.strategy), candidate.size)):
        lost = np.bincount(codes, weights=best.scores - item.scores, minlength=len(names))
        if np.quantile(lost[picks].sum(axis=1) / counts, 0.05) <= 0:
            return item
    return best


def worth(objective: Objective, weights: Weights, column: int) -> dict[int, float]:
    """What each member adds to the mean score; a negative number says that it is better left out.

    A member with a weight: what is lost without it, the others keeping their proportions; the only one with a weight:
    its lead over the best of the others alone. A member without: what an equal share of it would change.
    """
    everything = float(objective.tables([weights])[0][:, column].mean())
    size = sum(weight > 0 for weight in weights)
    added: dict[int, float] = {}
    for member, weight in enumerate(weights):
        rest = tuple(0.0 if index == member else value for index, value in enumerate(weights))
        if weight == 0:
            shared = tuple(value * size / (size + 1) for value in weights)
            joined = normalised([1 / (size + 1) if index == member else value for index, value in enumerate(shared)])
            added[member] = _best_mean(objective, [joined]) - everything
        elif size > 1:
            added[member] = everything - _best_mean(objective, [normalised(rest)])
        elif len(weights) > 1:
            alone = [tuple(float(index == other) for index in range(len(weights))) for other in range(len(weights))]
            added[member] = everything - _best_mean(
                objective, [alone[other] for other in range(len(weights)) if other != member]
            )
    return added


def _best_mean(objective: Objective, candidates: list[Weights]) -> float:
    """The highest mean score over all samples, candidates and settings."""
    return max(float(table.mean(axis=0).max()) for table in objective.tables(candidates))
