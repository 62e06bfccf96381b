"""Hausdorff distances: of objects by the GlaS rule, by distance transforms within boxes, and HD95 of outlines, by
KD-trees; never all pixels against all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numba
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.spatial import KDTree

from histofold.metrics.matching import Contingency, contingency

Box = NDArray[np.int64]
"""First and last row, first and last column of an object."""

FEW_PAIRS = 200_000
"""Up to so many pairs of pixels, as nuclei have, comparing them costs less than a map of distances."""


@dataclass(frozen=True)
class _Objects:
    """One image's objects, looked at one by one within their boxes."""

    labels: NDArray[np.int32]
    values: NDArray[np.int64]

    @cached_property
    def boxes(self) -> NDArray[np.int64]:
        """(n, 4) of top, bottom, left, right, all inclusive."""
        found = find_objects(self.labels)
        slices = [found[value - 1] for value in self.values.tolist()]
        rows = [(s[0].start, s[0].stop - 1, s[1].start, s[1].stop - 1) for s in slices]
        return np.array(rows, np.int64).reshape(-1, 4)

    def crop(self, index: int, box: Box) -> NDArray[np.uint8]:
        """The object alone, within a box: 1 inside, 0 outside."""
        window = self.labels[box[0] : box[1] + 1, box[2] : box[3] + 1]
        return (window == self.values[index]).astype(np.uint8)


def object_hausdorff(truth: NDArray[Any], prediction: NDArray[Any]) -> float:
    """Object-level Hausdorff distance of the GlaS contest, in pixels (Sirinukunwattana et al., MedIA 2017).

    Mean of two sums over objects, weighted by area: the distance of each true object to the prediction that overlaps
    it most (without an overlap: to the prediction at the smallest Hausdorff distance), and the same from the
    predictions' side. No object in either image is 0; with objects in only one of them the rule gives nothing, and the
    image's diagonal stands for it.
    """
    table = contingency(truth, prediction)
    if table.empty:
        return 0.0
    if table.n_truth == 0 or table.n_prediction == 0:
        return float(np.hypot(*truth.shape))
    first = _Objects(*_dense(truth, table.truth_labels))
    second = _Objects(*_dense(prediction, table.prediction_labels))
    known: dict[tuple[int, int], float] = {}
    partner = _partners(table.best_for_truth(table.overlaps), table.columns)
    forward = [_to_partner(first, second, at, other, known, False) for at, other in enumerate(partner)]
    partner = _partners(table.best_for_prediction(table.overlaps), table.rows)
    backward = [_to_partner(second, first, at, other, known, True) for at, other in enumerate(partner)]
    return (
        float(np.average(forward, weights=table.truth_areas))
        + float(np.average(backward, weights=table.prediction_areas))
    ) / 2  # fmt: skip


def matched_hausdorff(
    table: Contingency, pairs: NDArray[np.int64], truth: NDArray[Any], prediction: NDArray[Any]
) -> float:
    """Mean Hausdorff distance in pixels of pairs of the table, as FullNet's authors report nuclei; no pair is 0."""
    first = _Objects(*_dense(truth, table.truth_labels))
    second = _Objects(*_dense(prediction, table.prediction_labels))
    found = [_distance(first, int(table.rows[at]), second, int(table.columns[at])) for at in pairs]
    return float(np.mean(found)) if found else 0.0


def _dense(labels: NDArray[Any], values: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Labels numbered 1..n, so that tables indexed by label stay small."""
    if len(values) and values[-1] > 4 * len(values) + 65536:
        return np.searchsorted(values, labels).astype(np.int32) + (labels > 0), np.arange(1, len(values) + 1)
    return np.asarray(labels, np.int32), values


def _partners(best: NDArray[np.int64], others: NDArray[np.int64]) -> list[int]:
    """Index of each object's partner, −1 without an overlap."""
    return np.where(best >= 0, others[best] if len(others) else -1, -1).tolist()


def _to_partner(
    own: _Objects, others: _Objects, at: int, partner: int, known: dict[tuple[int, int], float], swapped: bool
) -> float:
    if partner < 0:
        return _to_nearest(own, at, others)
    pair = (partner, at) if swapped else (at, partner)
    if pair not in known:
        known[pair] = _distance(own, at, others, partner)
    return known[pair]


def _to_nearest(own: _Objects, at: int, others: _Objects) -> float:
    """Smallest Hausdorff distance of an object to any other, nearest boxes first.

    Two sets are at least as far apart as any side of their boxes: when that exceeds the best so far, all that follow
    do, too.
    """
    bounds = np.abs(others.boxes - own.boxes[at]).max(axis=1)
    best = np.inf
    for other in np.argsort(bounds, kind="stable").tolist():
        if bounds[other] >= best:
            break
        best = min(best, _distance(own, at, others, other))
    return float(best)


def _distance(first: _Objects, one: int, second: _Objects, two: int) -> float:
    """Hausdorff distance of two objects, all their pixels counted."""
    a, b = first.boxes[one], second.boxes[two]
    box = np.array([min(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), max(a[3], b[3])])
    left, right = first.crop(one, box), second.crop(two, box)
    return max(_directed(left, right), _directed(right, left))


def _directed(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> float:
    """Largest distance of a pixel of `left` to its nearest pixel of `right`."""
    outside = np.argwhere((left > 0) & (right == 0))
    if not len(outside):
        return 0.0
    outline = _outline(right)
    if len(outside) * len(outline) <= FEW_PAIRS:
        return float(np.sqrt(_farthest(outside, outline)))
    # Squares of distances are whole numbers: rounded, they are exact again (in single precision up to 2,000 pixels).
    distance = cv2.distanceTransform(1 - right, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[outside[:, 0], outside[:, 1]]
    return float(np.sqrt(np.rint(np.square(distance.max(), dtype=np.float64))))


@numba.njit(cache=True)
def _farthest(points: NDArray[np.int64], outline: NDArray[np.int64]) -> int:
    """Largest of the points' squared distances to the nearest pixel of the outline."""
    farthest = np.int64(0)
    for at in range(len(points)):
        nearest = np.int64(1) << 62
        for to in range(len(outline)):
            square = (points[at, 0] - outline[to, 0]) ** 2 + (points[at, 1] - outline[to, 1]) ** 2
            if square < nearest:
                nearest = square
                if nearest <= farthest:  # this point cannot be the farthest any more
                    break
        if nearest > farthest:
            farthest = nearest
    return int(farthest)


def _outline(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(n, 2) pixels of a mask that have an edge neighbour outside it; beyond the image is outside.

    For a point outside the mask, the nearest pixel of the mask is always one of these.
    """
    plus = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(mask, plus, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.argwhere((mask > 0) & (inner == 0))


def hd95(truth: NDArray[Any], prediction: NDArray[Any]) -> float:
    """95 % Hausdorff distance of two masks (nonzero is foreground), in pixels.

    The larger of the two 95th percentiles (linear interpolation) of the distances from one mask's outline to the
    other's (as MONAI's HausdorffDistanceMetric with `percentile=95`). Two empty masks: 0; one empty mask: the image's
    diagonal.
    """
    first, second = ((np.asarray(mask) != 0).astype(np.uint8) for mask in (truth, prediction))
    one, two = _outline(first), _outline(second)
    if not len(one) or not len(two):
        return 0.0 if len(one) == len(two) else float(np.hypot(*truth.shape))
    forward, _ = KDTree(two).query(one)
    backward, _ = KDTree(one).query(two)
    return float(max(np.percentile(forward, 95), np.percentile(backward, 95)))
