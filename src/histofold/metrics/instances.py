"""Instance scores of an image from one contingency table: PQ, the three AJI, object Dice, the GlaS and FullNet rules.

An image with no object in truth nor prediction scores 1 everywhere; with objects in only one of them, 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histofold.errors import ConfigError
from histofold.metrics.assignment import assign
from histofold.metrics.detection import Matching, dsb_score, match
from histofold.metrics.matching import Contingency, contingency
from histofold.metrics.semantic import PIXELS

Score = Callable[[Contingency], float]

COUNTS = ("found", "missed", "false")
"""Counts of an image's objects at IoU .5."""


def panoptic(table: Contingency) -> tuple[float, float, float]:
    """Panoptic, detection and segmentation quality; a match has an IoU greater than .5 (Kirillov et al., CVPR 2019)."""
    if table.empty:
        return 1.0, 1.0, 1.0
    hits = table.iou[table.overlaps * 2 > table.unions]
    detection = 2 * len(hits) / (table.n_truth + table.n_prediction)
    segmentation = float(hits.mean()) if len(hits) else 0.0
    return detection * segmentation, detection, segmentation


def pixel_scores(table: Contingency) -> tuple[float, float]:
    """Dice and IoU of the foreground, by pixel."""
    truth, prediction = int(table.truth_areas.sum()), int(table.prediction_areas.sum())
    if truth + prediction == 0:
        return 1.0, 1.0
    both = int(table.overlaps.sum())
    return 2 * both / (truth + prediction), both / (truth + prediction - both)


def aji(table: Contingency) -> float:
    """Aggregated Jaccard index of Kumar et al. (TMI 2017): several true objects may choose the same prediction.

    Each true object takes the prediction with the highest IoU, missed ones and unused predictions count as errors. Of
    predictions with equal IoU it takes that of the lowest label: there the score depends on how objects are numbered.
    """
    chosen = table.best_for_truth(table.iou)
    return _aggregated(table, chosen[chosen >= 0])


def aji_one_to_one(table: Contingency) -> float:
    """AJI as FullNet's authors count it: true objects in label order take the best prediction that is still free."""
    return _aggregated(table, greedy_pairs(table))


def aji_plus(table: Contingency) -> float:
    """AJI+ (Graham et al., HoVer-Net, MedIA 2019): the one-to-one assignment with the highest sum of IoU.

    Where several assignments have that sum, their AJI+ may differ (in 8 of 6,423 random pairs of label images), and
    that of the one which is found counts: it depends on how objects are numbered.
    """
    return _aggregated(table, assign(table.rows, table.columns, table.iou))


def _aggregated(table: Contingency, pairs: NDArray[np.int64]) -> float:
    """Intersections of the pairs over their unions and the areas of all objects that are in no pair."""
    if table.empty:
        return 1.0
    missed = np.setdiff1d(np.arange(table.n_truth), table.rows[pairs])
    unused = np.setdiff1d(np.arange(table.n_prediction), table.columns[pairs])
    below = table.unions[pairs].sum() + table.truth_areas[missed].sum() + table.prediction_areas[unused].sum()
    return float(table.overlaps[pairs].sum() / below)


def greedy_pairs(table: Contingency) -> NDArray[np.int64]:
    """Pairs that true objects take in label order: each the free prediction with the highest IoU, at any overlap."""
    free = np.ones(table.n_prediction, bool)
    ends = np.searchsorted(table.rows, np.arange(table.n_truth + 1))
    chosen: list[int] = []
    iou, columns = table.iou, table.columns
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        candidates = [at for at in range(start, end) if free[columns[at]]]
        if candidates:
            best = max(candidates, key=lambda at: iou[at])
            free[columns[best]] = False
            chosen.append(best)
    return np.array(chosen, np.int64)


def object_dice(table: Contingency) -> float:
    """Object-level Dice of the GlaS contest (Sirinukunwattana et al., MedIA 2017).

    Mean of two sums over objects, weighted by area: each true object's Dice with the prediction that overlaps it most,
    and the same from the predictions' side; without an overlap 0. Of objects that overlap it equally the one of the
    lowest label counts: there the score depends on how objects are numbered.
    """
    if table.empty:
        return 1.0
    sides = (
        (table.best_for_truth(table.overlaps), table.truth_areas),
        (table.best_for_prediction(table.overlaps), table.prediction_areas),
    )
    return float(sum(_weighted(table.dice, best, areas) for best, areas in sides) / 2)


def _weighted(score: NDArray[np.float64], best: NDArray[np.int64], areas: NDArray[np.int64]) -> float:
    if not len(areas):
        return 0.0
    values = np.zeros(len(areas))
    values[best >= 0] = score[best[best >= 0]]
    return float((values * areas).sum() / areas.sum())


def glas_matching(table: Contingency) -> Matching:
    """Hits by the rule of the GlaS contest (Sirinukunwattana et al., MedIA 2017).

    A predicted object is a hit when it covers at least half of the true object that it overlaps most, of equals that
    of the lowest label, so that the hits may depend on how objects are numbered; a true object without a hit is missed.
    """
    best = table.best_for_prediction(table.overlaps)
    best = best[best >= 0]
    hits = best[table.overlaps[best] * 2 >= table.truth_areas[table.rows[best]]]
    found = len(np.unique(table.rows[hits]))
    return Matching(0.5, len(hits), table.n_prediction - len(hits), table.n_truth - found, float(table.iou[hits].sum()))


def object_f1(table: Contingency) -> float:
    """F1 of the hits by the GlaS rule, with the same choice among equal overlaps as `glas_matching`."""
    return 1.0 if table.empty else glas_matching(table).f1


def fullnet_scores(table: Contingency) -> dict[str, float]:
    """Recall, precision, F1, Dice and IoU as FullNet's authors count nuclei (Qu et al., MICCAI 2019).

    Any overlap is a hit, one to one in label order; Dice and IoU are means over the hits. Not comparable with F1 at
    IoU .5. No hit gives 0 (the original divides by zero).
    """
    if table.empty:
        return dict.fromkeys(("recall", "precision", "f1", "dice", "iou"), 1.0)
    pairs = greedy_pairs(table)
    hits = Matching(0.0, len(pairs), table.n_prediction - len(pairs), table.n_truth - len(pairs), 0.0)
    scores = {"recall": hits.recall, "precision": hits.precision, "f1": hits.f1}
    scores["dice"] = float(table.dice[pairs].mean()) if len(pairs) else 0.0
    scores["iou"] = float(table.iou[pairs].mean()) if len(pairs) else 0.0
    return scores


def _detection(threshold: float, ratio: str) -> Score:
    """Score of the matches at an IoU."""

    def score(table: Contingency) -> float:
        return 1.0 if table.empty else float(getattr(match(table, threshold), ratio))

    return score


SCORES: dict[str, Score] = {
    "dsb": dsb_score,
    "ap50": _detection(0.5, "accuracy"),
    "ap75": _detection(0.75, "accuracy"),
    "ap90": _detection(0.9, "accuracy"),
    "precision_50": _detection(0.5, "precision"),
    "recall_50": _detection(0.5, "recall"),
    "f1_50": _detection(0.5, "f1"),
    "f2_50": _detection(0.5, "f2"),
    "pq": lambda table: panoptic(table)[0],
    "dq": lambda table: panoptic(table)[1],
    "sq": lambda table: panoptic(table)[2],
    "aji": aji,
    "aji_one_to_one": aji_one_to_one,
    "aji_plus": aji_plus,
    "dice": lambda table: pixel_scores(table)[0],
    "iou": lambda table: pixel_scores(table)[1],
    "object_dice": object_dice,
    "object_f1": object_f1,
}
"""Every score that follows from one contingency table, by name."""


def instance_scores(truth: NDArray[Any], prediction: NDArray[Any]) -> dict[str, float]:
    """All scores of two label images (H, W) but the Hausdorff distances.

    `dsb`, `ap50 ap75 ap90` (TP / (TP + FP + FN)), `precision_50 recall_50 f1_50 f2_50`, `pq dq sq`,
    `aji` (Kumar), `aji_one_to_one` (FullNet), `aji_plus`, `dice` and `iou` by pixel, `object_dice` and `object_f1`
    (GlaS), how many objects are `found`, `missed` and `false` at IoU .5, and the counts of pixels `PIXELS`.
    """
    return scores_of(contingency(truth, prediction))


def scores_of(table: Contingency) -> dict[str, float]:
    """As `instance_scores`, from a table that is there already."""
    hits = match(table, 0.5)
    counts = {name: float(count) for name, count in zip(COUNTS, (hits.tp, hits.fn, hits.fp), strict=True)}
    areas = (table.overlaps.sum(), table.truth_areas.sum(), table.prediction_areas.sum())
    pixels = {name: float(area) for name, area in zip(PIXELS, areas, strict=True)}
    return {**{name: score(table) for name, score in SCORES.items()}, **counts, **pixels}


def named_score(name: str) -> Score:
    """The function from a contingency table to the score of that name.

    Raises:
        ConfigError: no such score.
    """
    if name not in SCORES:
        raise ConfigError(f"metric={name}: unknown; expected one of {', '.join(SCORES)}")
    return SCORES[name]
