"""Learning the second level: trees of a candidate's IoU with the truth, from out-of-fold predictions only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def cross_fitted(found: Sequence[Found], folds: NDArray[np.int64], score: Score) -> list[Labels]:
    """Labels of every image; trees and level come from the other folds, the level from folds within them."""
    labels: dict[int, Labels] = {}
    for fold in np.unique(folds):
        others = np.flatnonzero(folds != fold)
        level = choose_level(found, folds, others, score)
        trees = learn([found[at] for at in others.tolist()])
        for at in np.flatnonzero(folds == fold).tolist():
            labels[at], _ = keep(found[at][0], expected(trees, found[at][0]), level)
    return [labels[at] for at in range(len(found))]


def choose_level(found: Sequence[Found], folds: NDArray[np.int64], chosen: NDArray[np.int64], score: Score) -> float:
    """The level that scores best on the images `chosen`, each judged by trees of the other folds among them.

    With a single fold there are no others, and it is the usual one.
    """
    if len(np.unique(folds[chosen])) < 2:
        return LEVELS[MIDDLE]
    totals = np.zeros(len(LEVELS))
    for fold in np.unique(folds[chosen]):
        trees = learn([found[at] for at in chosen[folds[chosen] != fold].tolist()])
        for at in chosen[folds[chosen] == fold].tolist():
            labels, values = keep(found[at][0], expected(trees, found[at][0]), LEVELS[0])
            counts = [int((values >= level).sum()) for level in LEVELS]
            by_count = {count: score(at, np.where(labels <= count, labels, 0)) for count in set(counts)}
            totals += [by_count[count] for count in counts]
    return LEVELS[int(np.argmax(totals))]
