"""The one matcher: two label images become a sparse contingency table once; every instance metric is made of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from histofold.errors import DataError

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Contingency:
    """Which true and predicted objects overlap, and by how many pixels.

    Attributes:
        truth_labels: (n,) labels of the true objects, ascending.
        prediction_labels: (m,) labels of the predicted objects, ascending.
        truth_areas: (n,) pixels.
        prediction_areas: (m,) pixels.
        rows: (k,) index of the true object of each overlapping pair; pairs are sorted by row, then column.
        columns: (k,) index of the predicted object of each pair.
        overlaps: (k,) pixels in common, at least 1.
        pixels: pixels of the image.
    """

    truth_labels: Integers
    prediction_labels: Integers
    truth_areas: Integers
    prediction_areas: Integers
    rows: Integers
    columns: Integers
    overlaps: Integers
    pixels: int

    @property
    def n_truth(self) -> int:
        """How many true objects."""
        return len(self.truth_areas)

    @property
    def n_prediction(self) -> int:
        """How many predicted objects."""
        return len(self.prediction_areas)

    @property
    def empty(self) -> bool:
        """Whether there is neither a true nor a predicted object: every score of such an image is 1."""
        return self.n_truth == 0 and self.n_prediction == 0

    @cached_property
    def unions(self) -> Integers:
        """(k,) pixels in either object of each pair."""
        return self.truth_areas[self.rows] + self.prediction_areas[self.columns] - self.overlaps

    @cached_property
    def iou(self) -> Floats:
        """(k,) intersection over union of each pair."""
        return self.overlaps / self.unions

    @cached_property
    def dice(self) -> Floats:
        """(k,) Dice of each pair."""
        return 2.0 * self.overlaps / (self.truth_areas[self.rows] + self.prediction_areas[self.columns])

    def without_small(self, least: int) -> Contingency:
        """The table as if predicted objects of fewer than `least` pixels had been dropped before it was counted."""
        kept = self.prediction_areas >= least
        if kept.all():
            return self
        pairs = kept[self.columns]
        place = np.cumsum(kept) - 1
        return replace(
            self,
            prediction_labels=self.prediction_labels[kept],
            prediction_areas=self.prediction_areas[kept],
            rows=self.rows[pairs],
            columns=place[self.columns[pairs]],
            overlaps=self.overlaps[pairs],
        )

    def best_for_truth(self, score: NDArray[Any]) -> Integers:
        """(n,) index of each true object's pair with the highest score, the first of equals; −1 without a pair."""
        return _best(self.rows, score, self.n_truth)

    def best_for_prediction(self, score: NDArray[Any]) -> Integers:
        """(m,) index of each predicted object's pair with the highest score, the first of equals; −1 without one."""
        return _best(self.columns, score, self.n_prediction)


def contingency(truth: NDArray[Any], prediction: NDArray[Any]) -> Contingency:
    """Count the overlaps of two label images (H, W) of any integer type, 0 background, in one pass.

    Raises:
        DataError: shapes differ, labels are no integers, negative or above 2³¹ − 1.
    """
    if truth.shape != prediction.shape:
        raise DataError(f"labels: truth is {truth.shape}, prediction {prediction.shape}; expected the same size")
    first, second, counts = _count(_flat(truth, "truth"), _flat(prediction, "prediction"))
    truth_labels, truth_areas, truth_index = _areas(first, counts)
    prediction_labels, prediction_areas, prediction_index = _areas(second, counts)
    both = (first > 0) & (second > 0)
    rows, columns, overlaps = truth_index[both], prediction_index[both], counts[both]
    order = np.lexsort((columns, rows))
    return Contingency(
        truth_labels, prediction_labels, truth_areas, prediction_areas,
        rows[order], columns[order], overlaps[order], int(truth.size),
    )  # fmt: skip


def _flat(labels: NDArray[Any], which: str) -> NDArray[np.int32]:
    array = np.asarray(labels)
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"labels: expected integers in {which}, found {array.dtype}")
    small = array.dtype.kind == "u" and array.dtype.itemsize < 4
    if not small and array.size and (array.min() < 0 or array.max() > np.iinfo(np.int32).max):
        raise DataError(f"labels: expected 0 to 2147483647 in {which}, found {array.min()} to {array.max()}")
    return np.ascontiguousarray(array, dtype=np.int32).reshape(-1)


def _areas(labels: Integers, counts: Integers) -> tuple[Integers, Integers, Integers]:
    """Labels, their areas and each pair's index among them (meaningless where the label is background)."""
    values, inverse = np.unique(labels, return_inverse=True)
    areas = np.bincount(inverse, weights=counts, minlength=len(values)).astype(np.int64)
    background = int(len(values) > 0 and values[0] == 0)
    return values[background:].astype(np.int64), areas[background:], inverse.astype(np.int64) - background


def _best(owners: Integers, score: NDArray[Any], count: int) -> Integers:
    best = np.full(count, -1, np.int64)
    # Written in rising order of score, the last one written wins; among equals that is the first pair.
    order = np.lexsort((-np.arange(len(owners)), score))
    best[owners[order]] = order
    return best


@numba.njit(nogil=True, cache=True, inline="always")
def _slot(keys: Integers, key: int) -> int:
    """Where a key is, or belongs, in an open-addressing table whose size is a power of two."""
    mask = keys.size - 1
    at = ((key * 0x9E3779B97F4A7C1) >> 24) & mask
    while keys[at] != -1 and keys[at] != key:
        at = (at + 1) & mask
    return at


@numba.njit(nogil=True, cache=True)
def _grown(keys: Integers, counts: Integers) -> tuple[Integers, Integers]:
    new_keys = np.full(keys.size * 4, -1, np.int64)
    new_counts = np.zeros(keys.size * 4, np.int64)
    for at in range(keys.size):
        if keys[at] != -1:
            slot = _slot(new_keys, keys[at])
            new_keys[slot], new_counts[slot] = keys[at], counts[at]
    return new_keys, new_counts


@numba.njit(nogil=True, cache=True)
def _count(truth: NDArray[np.int32], prediction: NDArray[np.int32]) -> tuple[Integers, Integers, Integers]:
    """Pairs of labels (but background with background) and how often each occurs; runs of a pair are added at once."""
    keys = np.full(1 << 12, -1, np.int64)
    counts = np.zeros(keys.size, np.int64)
    used, start, total = 0, 0, truth.size
    while start < total:
        t, p = truth[start], prediction[start]
        end = start + 1
        while end < total and truth[end] == t and prediction[end] == p:
            end += 1
        if t != 0 or p != 0:
            slot = _slot(keys, (np.int64(t) << 31) | np.int64(p))
            if keys[slot] == -1:
                keys[slot] = (np.int64(t) << 31) | np.int64(p)
                used += 1
            counts[slot] += end - start
            if used * 2 > keys.size:
                keys, counts = _grown(keys, counts)
        start = end
    held = np.flatnonzero(keys != -1)
    return keys[held] >> 31, keys[held] & 0x7FFFFFFF, counts[held]
