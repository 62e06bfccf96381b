"""Which members and which weights: searched on OOF predictions, for each fold on the other folds.

The searches of all folds go step by step together, and every distinct vector is scored once for all of them: a fold's
own samples are scored along, but only the others' scores are looked at. What a fold is given can therefore not depend
on its own truth. Among many samples a step's candidates are compared on a few of them first, the better ones on more,
and only the best on all (successive halving: Karnin, Koren and Somekh 2013).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from histofold.evaluation.crossfit import best_column

Weights = tuple[float, ...]
"""One weight a run, summing to 1."""

Table = NDArray[np.float64]
"""Scores (samples, settings) of one weight vector; settings are thresholds or decoder settings."""

Rows = NDArray[np.bool_]
Indices = NDArray[np.int64]
Steps = Generator[list[Weights], tuple[Weights, float], Weights]
"""A search: it asks for the best of some candidates, is told which and how good, and returns its choice."""

ROUNDS = 12
"""Members that greedy selection draws at most, with replacement (Caruana et al. 2004)."""

STEPS = (0.25, 0.1)
"""Share of the weight that a move of the climb gives to a member or takes from it, coarse to fine."""

MOVES = 6
"""Moves of each length that the climb makes at most."""

GAIN = 1e-4
"""A change must be worth more than this: less is noise, and the search would walk along a plateau."""

SCREENS = ((24, 6), (96, 2))
"""(samples, candidates): a step's candidates are compared on so many samples, and so many of them stay.

A screen of at least half of the samples is left out: it would save little.
"""


class Objective:
    """Scores weight vectors, each one once a sample.

    Args:
        score: many weight vectors in one pass over the samples of these indices → their tables, rows in that order.
        samples: how many there are.
    """

    def __init__(self, score: Callable[[list[Weights], Indices], list[Table]], samples: int) -> None:
        self._score = score
        self._known: dict[Weights, Table] = {}
        self._all = np.arange(samples)
        # Drawn without a look at any score, so that it tells no fold anything; a screen has the smaller ones in it.
        drawn = np.random.default_rng(0).permutation(samples)
        self._screens = [(np.sort(drawn[:size]), kept) for size, kept in SCREENS if 2 * size <= samples]

    def tables(self, candidates: Sequence[Weights]) -> list[Table]:
        """The table of each candidate."""
        self._fill(candidates, self._all)
        return [self._known[weights] for weights in candidates]

    def best(self, asked: Sequence[tuple[list[Weights], Rows]]) -> list[tuple[Weights, float]]:
        """For each (candidates, rows): the one whose best setting has the highest mean over `rows`, first of equals."""
        for screen, kept in self._screens:
            wanted = [candidates for candidates, _ in asked if len(candidates) > kept]
            self._fill([weights for candidates in wanted for weights in candidates], screen)
            asked = [(self._shortlist(candidates, rows, screen, kept), rows) for candidates, rows in asked]
        self._fill([weights for candidates, _ in asked for weights in candidates], self._all)
        return [self._first(candidates, rows) for candidates, rows in asked]

    def _shortlist(self, candidates: list[Weights], rows: Rows, screen: Indices, kept: int) -> list[Weights]:
        looked_at = screen[rows[screen]]
        if len(candidates) <= kept or not len(looked_at):
            return candidates
        values = [_value(self._known[weights][looked_at]) for weights in candidates]
        return [candidates[at] for at in sorted(np.argsort(values)[::-1][:kept])]

    def _first(self, candidates: list[Weights], rows: Rows) -> tuple[Weights, float]:
        values = [_value(self._known[weights][rows]) for weights in candidates]
        chosen = int(np.argmax(values))
        return candidates[chosen], values[chosen]

    def _fill(self, candidates: Sequence[Weights], rows: Indices) -> None:
        """Score what is not known yet, in one pass over the samples that any of it needs."""
        missing: dict[Weights, Indices] = {}
        for weights in candidates:
            known = self._known.get(weights)
            unscored = rows if known is None else rows[np.isnan(known[rows, 0])]
            if len(unscored):
                missing[weights] = unscored
        # Those that were screened need the others only: a few kinds, a pass for each.
        kinds = {needed.tobytes(): needed for needed in missing.values()}
        for kind, needed in kinds.items():
            fresh = [weights for weights, unscored in missing.items() if unscored.tobytes() == kind]
            for weights, table in zip(fresh, self._score(fresh, needed), strict=True):
                whole = self._known.setdefault(weights, np.full((len(self._all), table.shape[1]), np.nan))
                whole[needed] = table


def _value(table: Table) -> float:
    return float(table.mean(axis=0).max())


def normalised(values: Sequence[float]) -> Weights:
    """Scale to a sum of 1, rounded so that equal vectors compare equal."""
    total = sum(values)
    return tuple(round(value / total, 6) for value in values)


def equal(count: int) -> Steps:
    """Every member the same: the choice that cannot overfit."""
    yield from ()
    return normalised([1.0] * count)


def greedy(count: int) -> Steps:
    """Forward selection with replacement: begin with the best member, add whichever helps most, stop when none does."""
    picks = [0] * count
    best: Weights = ()
    value = -np.inf
    for _ in range(ROUNDS):
        candidates = [
            normalised([pick + (index == member) for index, pick in enumerate(picks)]) for member in range(count)
        ]
        found, gained = yield candidates
        if gained <= value + GAIN:
            break
        best, value = found, gained
        picks[candidates.index(found)] += 1
    return best


def climb(count: int) -> Steps:
    """Direct optimisation of the metric: from equal weights, raise or lower one member after another while it helps."""
    weights = normalised([1.0] * count)
    _, value = yield [weights]
    for step in STEPS:
        for _ in range(MOVES):
            found, gained = yield _neighbours(weights, step)
            if gained <= value + GAIN:
                break
            weights, value = found, gained
    return weights


def _neighbours(weights: Weights, step: float) -> list[Weights]:
    """One member raised or lowered by `step`, the others keeping their proportions."""
    moved = []
    for member, weight in enumerate(weights):
        for wanted in (min(1.0, weight + step), max(0.0, weight - step)):
            if wanted != weight and weight < 1:
                rest = (1 - wanted) / (1 - weight)
                moved.append(normalised([wanted if at == member else value * rest for at, value in enumerate(weights)]))
    return list(dict.fromkeys(moved))


STRATEGIES: dict[str, Callable[[int], Steps]] = {"equal": equal, "greedy": greedy, "optimise": climb}
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
        seen: fold → (N,) score of each sample under that fold's choice; what the others can know of it.
    """

    strategy: str
    weights: Weights
    column: int
    per_fold: dict[int, tuple[Weights, int]]
    scores: NDArray[np.float64]
    optimistic: float
    seen: dict[int, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def cross_fitted(self) -> float:
        """Mean honest score."""
        return float(self.scores.mean())

    @property
    def size(self) -> int:
        """Members with a weight."""
        return sum(weight > 0 for weight in self.weights)


def search(
    strategy: str,
    objective: Objective,
    folds: NDArray[np.int64],
    count: int,
    by_fold: Mapping[int, Objective] | None = None,
) -> Found:
    """Run one strategy on all samples, and for each fold on the others.

    Args:
        objective: for all samples, and for folds that `by_fold` does not name.
        by_fold: what a fold's weights are chosen by, which must owe nothing to its own truth.
    """
    names = [int(fold) for fold in np.unique(folds)]
    everything = np.ones(len(folds), np.bool_)
    masks = [everything, *(folds != fold if len(names) > 1 else everything for fold in names)]
    objectives = [objective, *((by_fold or {}).get(fold, objective) for fold in names)]
    weights, *chosen = _together(strategy, objectives, masks, count)
    table = objective.tables([weights])[0]
    column = best_column(table)
    per_fold: dict[int, tuple[Weights, int]] = {}
    scores = np.empty(len(folds))
    seen: dict[int, NDArray[np.float64]] = {}
    for fold, rows, judge, mine in zip(names, masks[1:], objectives[1:], chosen, strict=True):
        found = judge.tables([mine])[0]
        per_fold[fold] = (mine, best_column(found[rows]))
        seen[fold] = found[:, per_fold[fold][1]]
        scores[folds == fold] = seen[fold][folds == fold]
    return Found(strategy, weights, column, per_fold, scores, float(table[:, column].mean()), seen)


def _together(strategy: str, objectives: Sequence[Objective], masks: Sequence[Rows], count: int) -> list[Weights]:
    """Run a strategy once for each set of samples, all in step, so that a pass over the files serves all of them."""
    running = {at: STRATEGIES[strategy](count) for at in range(len(masks))}
    answers: dict[int, tuple[Weights, float]] = {}
    chosen: dict[int, Weights] = {}
    while running:
        asked: dict[int, list[Weights]] = {}
        for at, steps in list(running.items()):
            try:
                asked[at] = steps.send(answers[at]) if at in answers else next(steps)
            except StopIteration as end:
                chosen[at] = end.value
                del running[at]
        answers = {}
        for judge in dict.fromkeys(objectives[at] for at in asked):
            mine = [at for at in asked if objectives[at] is judge]
            answers.update(zip(mine, judge.best([(asked[at], masks[at]) for at in mine]), strict=True))
    return [chosen[at] for at in range(len(masks))]


def worth(objective: Objective, weights: Weights) -> dict[int, float]:
    """What each member adds to the mean score; a negative number says that it is better left out.

    A member with a weight: what is lost without it, the others keeping their proportions; the only one with a weight:
    its lead over the best of the others alone. A member without: what an equal share of it would change. With and
    without it, the setting is the best of the objective's.
    """
    size = sum(weight > 0 for weight in weights)
    compared = {member: _without(weights, member, size) for member in range(len(weights)) if len(weights) > 1}
    # All in one pass over the files.
    objective.tables([weights, *(other for others in compared.values() for other in others)])
    everything = _value(objective.tables([weights])[0])
    added: dict[int, float] = {}
    for member, others in compared.items():
        value = max(_value(table) for table in objective.tables(others))
        added[member] = everything - value if weights[member] > 0 else value - everything
    return added


def _without(weights: Weights, member: int, size: int) -> list[Weights]:
    """What an ensemble of `size` members with a weight is compared with to see what one adds."""
    count = len(weights)
    if weights[member] == 0:
        return [
            normalised(
                [1 / (size + 1) if at == member else weight * size / (size + 1) for at, weight in enumerate(weights)]
            )
        ]
    if size > 1:
        return [normalised([0.0 if at == member else weight for at, weight in enumerate(weights)])]
    return [tuple(float(at == other) for at in range(count)) for other in range(count) if other != member]
