"""Learning the second level: trees of a candidate's IoU with the truth, from out-of-fold predictions only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from histofold.errors import DataError
from histofold.instances.candidates import Candidates
from histofold.instances.cleanup import Labels
from histofold.instances.secondlevel import keep
from histofold.instances.trees import Trees

LEVELS = (0.02, 0.35, 0.5, 0.65)
"""Expected IoU below which a candidate is dropped; which one is chosen with the trees, on other folds."""

MIDDLE = 1
"""Index of the level that is taken where there are too few folds to choose one."""

SETTINGS: dict[str, Any] = {"max_iter": 150, "learning_rate": 0.08, "max_leaf_nodes": 15, "min_samples_leaf": 20}
"""Of the regressor; small, because folds of few images are learned from."""

Found = tuple[Candidates, NDArray[np.float64]]
"""An image's candidates and the IoU of each with the truth."""

Score = Callable[[int, Labels], float]
"""(index of an image, its labels) → how good they are."""

Names = frozenset[int]
"""Folds."""

Alone = Callable[[NDArray[np.bool_]], NDArray[np.float64]]
"""Images (N,) that have a part in the choice of the decoder's settings → (N,) scores under what they chose."""


def truth_iou(candidates: Candidates, truth: NDArray[Any]) -> NDArray[np.float64]:
    """IoU of every candidate with the true instance that it overlaps most (by IoU); 0 without one."""
    areas = np.bincount(truth.ravel())
    found = np.zeros(len(candidates))
    for at, (box, mask) in enumerate(zip(candidates.boxes, candidates.masks, strict=True)):
        under = truth[box[0] : box[2], box[1] : box[3]][mask]
        labels, counts = np.unique(under[under > 0], return_counts=True)
        if len(labels):
            found[at] = float((counts / (areas[labels] + mask.sum() - counts)).max())
    return found


def learn(found: Sequence[Found]) -> Trees:
    """Fit trees of IoU on all candidates of some images; every image counts the same in sum.

    Raises:
        DataError: there is no candidate.
    """
    there = [(candidates, iou) for candidates, iou in found if len(candidates)]
    if not there:
        raise DataError("second level: the other folds' predictions hold no object; take evaluate.second_level=off")
    features = np.concatenate([candidates.features for candidates, _ in there])
    weights = np.concatenate([np.full(len(candidates), 1 / len(candidates)) for candidates, _ in there])
    model = HistGradientBoostingRegressor(**SETTINGS, random_state=0, early_stopping=False)
    model.fit(features, np.concatenate([iou for _, iou in there]), sample_weight=weights / weights.mean())
    return Trees.of(model)


def expected(trees: Trees, candidates: Candidates) -> NDArray[np.float64]:
    """The IoU that trees expect of each candidate."""
    return trees(candidates.features) if len(candidates) else np.zeros(0)


@dataclass(frozen=True)
class Learner:
    """Candidates of all images, and what was learned of sets of folds: a set comes up again and again.

    Attributes:
        folds: (N,) of the images.
        score: how good an image's labels are.
    """

    found: Sequence[Found]
    folds: NDArray[np.int64]
    score: Score
    _trees: dict[Names, Trees] = field(default_factory=dict)
    _levels: dict[tuple[int, Names], list[float]] = field(default_factory=dict)

    @property
    def names(self) -> Names:
        """All folds."""
        return frozenset(self.folds.tolist())

    def images(self, fold: int) -> list[int]:
        """Indices of a fold's images."""
        return np.flatnonzero(self.folds == fold).tolist()

    def trees(self, names: Names) -> Trees:
        """Trees of the images of some folds."""
        if names not in self._trees:
            self._trees[names] = learn([one for one, fold in zip(self.found, self.folds, strict=True) if fold in names])
        return self._trees[names]

    def levels(self, at: int, names: Names) -> list[float]:
        """Score of an image at each level, by trees of some folds."""
        if (at, names) not in self._levels:
            one = self.found[at][0]
            labels, values = keep(one, expected(self.trees(names), one), LEVELS[0])
            counts = [int((values >= level).sum()) for level in LEVELS]
            by_count = {count: self.score(at, np.where(labels <= count, labels, 0)) for count in set(counts)}
            self._levels[(at, names)] = [by_count[count] for count in counts]
        return self._levels[(at, names)]


def cross_fitted(learner: Learner, among: Names | None = None) -> dict[int, Labels]:
    """Labels of every image; trees and level come from the other folds, the level from folds within them.

    Args:
        among: folds that have a part in it, and whose images get labels; by default all.
    """
    names = learner.names if among is None else among
    labels: dict[int, Labels] = {}
    for fold in sorted(names):
        level, trees = choose_level(learner, names - {fold}), learner.trees(names - {fold})
        for at in learner.images(fold):
            one = learner.found[at][0]
            labels[at], _ = keep(one, expected(trees, one), level)
    return dict(sorted(labels.items()))


def choose_level(learner: Learner, names: Names) -> float:
    """The level that scores best on the images of some folds, each judged by trees of the other folds among them.

    With a single fold there are no others, and it is the usual one.
    """
    if len(names) < 2:
        return LEVELS[MIDDLE]
    totals = np.zeros(len(LEVELS))
    for fold in sorted(names):
        for at in learner.images(fold):
            totals += learner.levels(at, names - {fold})
    return LEVELS[int(np.argmax(totals))]


def preferred(learner: Learner, alone: Alone, score: Score) -> NDArray[np.bool_]:
    """Images (N,) whose other folds score better with the second level than with the decoder alone.

    A fold has no part in this: the others are scored by trees, levels and decoder settings that they chose among
    themselves. With fewer than three folds nobody is left to choose those, and it is nowhere.

    Args:
        score: how good labels are, on the scale of the scores that `alone` gives.
    """
    given = np.zeros(len(learner.folds), np.bool_)
    for fold in sorted(learner.names) if len(learner.names) > 2 else ():
        others = learner.folds != fold
        second = [score(at, labels) for at, labels in cross_fitted(learner, learner.names - {fold}).items()]
        given[~others] = np.mean(second - alone(others)[others]) > 0
    return given
