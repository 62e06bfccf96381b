"""Detection scores at IoU thresholds: the Kaggle DSB metric, AP, precision, recall and F1, per image and pooled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histofold.metrics.assignment import assign
from histofold.metrics.matching import Contingency, contingency

DSB_STEPS = np.arange(10, 20)
"""Thresholds of the Data Science Bowl in twentieths: .50, .55, … .95."""


def dsb(truth: NDArray[Any], prediction: NDArray[Any]) -> float:
    """Kaggle's metric of the Data Science Bowl 2018 for one image's labels (H, W)."""
    return dsb_score(contingency(truth, prediction))


def dsb_score(table: Contingency) -> float:
    """Mean over IoU .50, .55, … .95 of TP / (TP + FP + FN); a hit has an IoU *greater* than the threshold.

    Source: evaluation page of kaggle.com/c/data-science-bowl-2018. Above .5 no object can be hit twice, so no
    assignment is needed. Compared in whole numbers, because .65 is no binary fraction. No object in either image is 1.
    """
    if table.empty:
        return 1.0
    hits = (table.overlaps[:, None] * 20 > table.unions[:, None] * DSB_STEPS).sum(axis=0)
    return float(np.mean(hits / (table.n_truth + table.n_prediction - hits)))


@dataclass(frozen=True)
class Matching:
    """Counts of one-to-one matches at an IoU threshold, of one image or of many; adding two pools them.

    Definitions and the empty cases are those of StarDist's `matching` (Schmidt et al. 2018): accuracy is
    TP / (TP + FP + FN), which DSB papers call AP; a ratio without any true positive is 0. Counts and the ratios of
    counts are the same; `matched_iou` and what comes of it may be higher here at thresholds below .5 (see `match`).

    Attributes:
        threshold: smallest IoU of a match.
        tp: matched objects.
        fp: predicted objects without a match.
        fn: true objects without a match.
        matched_iou: sum of the IoU of the matches.
    """

    threshold: float
    tp: int
    fp: int
    fn: int
    matched_iou: float

    def __add__(self, other: Matching) -> Matching:
        if other.threshold != self.threshold:
            raise ValueError(f"cannot pool matches at IoU {self.threshold} and {other.threshold}")
        return Matching(
            self.threshold, self.tp + other.tp, self.fp + other.fp, self.fn + other.fn,
            self.matched_iou + other.matched_iou,
        )  # fmt: skip

    @property
    def n_truth(self) -> int:
        """True objects."""
        return self.tp + self.fn

    @property
    def n_prediction(self) -> int:
        """Predicted objects."""
        return self.tp + self.fp

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return self.tp / (self.tp + self.fp) if self.tp else 0.0

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return self.tp / (self.tp + self.fn) if self.tp else 0.0

    @property
    def accuracy(self) -> float:
        """TP / (TP + FP + FN): the AP of the Data Science Bowl at one threshold."""
        return self.tp / (self.tp + self.fp + self.fn) if self.tp else 0.0

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn) if self.tp else 0.0

    @property
    def f2(self) -> float:
        """5 TP / (5 TP + FP + 4 FN): a missed object weighs four times a false one (Kaggle's Airbus ships, 2018)."""
        return 5 * self.tp / (5 * self.tp + self.fp + 4 * self.fn) if self.tp else 0.0

    @property
    def mean_true_score(self) -> float:
        """Sum of the matches' IoU over the number of true objects."""
        return self.matched_iou / self.n_truth if self.n_truth else 0.0

    @property
    def mean_matched_score(self) -> float:
        """Mean IoU of the matches."""
        return self.matched_iou / self.tp if self.tp else 0.0

    @property
    def panoptic_quality(self) -> float:
        """Sum of the matches' IoU / (TP + FP/2 + FN/2)."""
        return self.matched_iou / (self.tp + self.fp / 2 + self.fn / 2) if self.tp else 0.0


def match(table: Contingency, threshold: float = 0.5) -> Matching:
    """Match objects one to one at IoU >= `threshold`: as many as possible, and of those the highest sum of IoU.

    As many as StarDist's `matching` finds; unlike the Data Science Bowl it counts an IoU equal to the threshold. Below
    .5, where an object may have several partners, the sum of IoU may be higher than StarDist's, whose optimum also
    counts the IoU of pairs below the threshold.
    """
    pairs = matched_pairs(table, threshold)
    count = len(pairs)
    return Matching(threshold, count, table.n_prediction - count, table.n_truth - count, float(table.iou[pairs].sum()))


def matched_pairs(table: Contingency, threshold: float) -> NDArray[np.int64]:
    """Indices of the table's pairs that `match` keeps."""
    near = np.flatnonzero(table.iou >= threshold)
    # One more match must outweigh any gain in IoU: all IoU gains together stay below 1.
    weight = 1.0 + table.iou[near] / (2.0 * max(1, min(table.n_truth, table.n_prediction)))
    return near[assign(table.rows[near], table.columns[near], weight)]


def pool(tables: Iterable[Contingency], thresholds: Sequence[float] = (0.5,)) -> list[Matching]:
    """Sum the matches of many images at each threshold, as StarDist's `matching_dataset(by_image=False)` does."""
    sums = [Matching(float(threshold), 0, 0, 0, 0.0) for threshold in thresholds]
    for table in tables:
        sums = [total + match(table, total.threshold) for total in sums]
    return sums
