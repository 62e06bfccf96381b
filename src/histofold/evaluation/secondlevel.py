"""The second level: candidates of several settings, scored by a regressor of how good they are, the best kept.

Every candidate of an image is described by its shape, its intensities, the bands below it and how far the other
settings and the members agree on it. A gradient-boosted regressor learns its IoU with the truth, from out-of-fold
predictions only: what it says about a fold it learned on the other folds. Then the best ones without overlap are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from histofold import metrics
from histofold.errors import DataError
from histofold.instances import Decoder
from histofold.instances.base import Bands
from histofold.instances.cleanup import Labels

SAME = 0.95
"""IoU above which two candidates of an image are one."""

FREE = 0.9
"""Share of a candidate's pixels that nothing better may have taken."""

LEVELS = (0.02, 0.35, 0.5, 0.65)
"""Predicted IoU below which a candidate is dropped; which one is chosen with the regressor, on other folds."""

SETTINGS: dict[str, Any] = {"max_iter": 150, "learning_rate": 0.08, "max_leaf_nodes": 15, "min_samples_leaf": 20}
"""Of the regressor; small, because folds of few images are learned from."""


@dataclass(frozen=True)
class Candidates:
    """The candidates of one image.

    Attributes:
        shape: (H, W) of the image.
        boxes: (n, 4) top, left, bottom, right.
        masks: n masks of their boxes.
        features: (n, f), NaN where something cannot be measured.
    """

    shape: tuple[int, int]
    boxes: NDArray[np.int64]
    masks: tuple[NDArray[np.bool_], ...]
    features: NDArray[np.float64]

    def __len__(self) -> int:
        """How many."""
        return len(self.masks)


def find(
    image: NDArray[np.uint8], bands: Bands, views: Sequence[NDArray[np.float32]], decoders: Sequence[Decoder]
) -> Candidates:
    """Candidates of an image (H, W, 3) from its bands (H, W) under every decoder, near-copies left out.

    Args:
        views: foreground (H, W) of each member or test-time view alone: what they disagree on is doubtful.
    """
    images = [decoder(bands) for decoder in decoders]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    spread = np.std(np.stack(views), axis=0) if len(views) > 1 else np.zeros(grey.shape, np.float32)
    layers = [grey, cv2.blur(grey, (31, 31)), spread, *(np.asarray(band, np.float32) for band in bands.values())]
    boxes, masks, rows = [], [], []
    for number, labels in enumerate(images):
        agreement = _agreement(labels, [other for at, other in enumerate(images) if at != number])
        earlier = _agreement(labels, images[:number]).max(axis=1, initial=0.0)
        for label, box, mask in _objects(labels):
            if earlier[label] <= SAME:
                boxes.append(box)
                masks.append(mask)
                rows.append([*_shape(mask, box, grey.shape), *_levels(layers, box, mask), *_summary(agreement[label])])
    return Candidates(
        (grey.shape[0], grey.shape[1]),
        np.array(boxes, np.int64).reshape(-1, 4),
        tuple(masks),
        np.array(rows, np.float64).reshape(len(rows), -1 if rows else 0),
    )


def _objects(labels: Labels) -> list[tuple[int, tuple[int, int, int, int], NDArray[np.bool_]]]:
    """Label, box and mask of each instance."""
    from scipy.ndimage import find_objects

    found = []
    for label, place in enumerate(find_objects(labels), 1):
        if place is not None:
            rows, columns = place
            box = (rows.start, columns.start, rows.stop, columns.stop)
            found.append((label, box, labels[place] == label))
    return found


def _agreement(labels: Labels, others: Sequence[Labels]) -> NDArray[np.float64]:
    """Best IoU of each label (rows 0..max) with an instance of each other label image."""
    best = np.zeros((int(labels.max(initial=0)) + 1, len(others)))
    for column, other in enumerate(others):
        table = metrics.contingency(labels, other)
        pairs = table.best_for_truth(table.iou)
        there = pairs >= 0
        best[table.truth_labels[there], column] = table.iou[pairs[there]]
    return best


def _summary(values: NDArray[np.float64]) -> list[float]:
    return [float(values.mean()), float(values.min()), float(values.max())] if len(values) else [np.nan] * 3


def _shape(mask: NDArray[np.bool_], box: tuple[int, int, int, int], size: tuple[int, ...]) -> list[float]:
    """Size, roundness, solidity, elongation, and whether the image's edge cuts it."""
    area = float(mask.sum())
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=len)
    length = cv2.arcLength(outline, True)
    hull = np.zeros(mask.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(outline), 1)
    y, x = np.nonzero(mask)
    spreads = np.linalg.eigvalsh(np.cov(np.stack([y, x])) + np.eye(2) / 12) if area > 1 else np.ones(2)
    cut = box[0] == 0 or box[1] == 0 or box[2] == size[0] or box[3] == size[1]
    round_ = 4 * np.pi * area / max(length, 1.0) ** 2
    return [np.log(area), round_, area / float(hull.sum()), float(np.sqrt(spreads[1] / spreads[0])), float(cut)]


def _levels(
    layers: Sequence[NDArray[np.float32]], box: tuple[int, int, int, int], mask: NDArray[np.bool_]
) -> list[float]:
    """Mean, spread and rim of every layer within the candidate, as the rim's difference to the inside."""
    top, left, bottom, right = box
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0
    rim = mask & ~inside
    found: list[float] = []
    for layer in layers:
        part = layer[top:bottom, left:right]
        values = part[mask]
        middle = float(part[inside].mean()) if inside.any() else np.nan
        found += [float(values.mean()), float(values.std()), float(part[rim].mean()) - middle]
    return found


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


def keep(candidates: Candidates, scores: NDArray[np.float64], least: float) -> Labels:
    """Paint candidates (best score first) of at least `least` where nearly all of their pixels are free; (H, W) int32.

    Of equals the larger one comes first. Pixels that a better one has stay with it, so no two instances overlap.
    """
    labels = np.zeros(candidates.shape, np.int32)
    areas = [int(mask.sum()) for mask in candidates.masks]
    count = 0
    for at in sorted(range(len(candidates)), key=lambda index: (-scores[index], -areas[index])):
        if scores[at] < least:
            break
        top, left, bottom, right = candidates.boxes[at]
        place = labels[top:bottom, left:right]
        free = candidates.masks[at] & (place == 0)
        if free.sum() >= FREE * areas[at]:
            count += 1
            place[free] = count
    return labels


def learn(candidates: Sequence[Candidates], truth: Sequence[NDArray[np.float64]]) -> HistGradientBoostingRegressor:
    """Fit the regressor of IoU on all candidates of some images; every image counts the same in sum.

    Raises:
        DataError: there is no candidate at all.
    """
    there = [at for at, found in enumerate(candidates) if len(found)]
    if not there:
        raise DataError(
            f"evaluate.second_level: no candidate in {len(candidates)} images to learn from; is the run trained?"
        )
    features = np.concatenate([candidates[at].features for at in there])
    weights = np.concatenate([np.full(len(candidates[at]), 1 / len(candidates[at])) for at in there])
    model = HistGradientBoostingRegressor(**SETTINGS, random_state=0, early_stopping=False)
    model.fit(features, np.concatenate([truth[at] for at in there]), sample_weight=weights / weights.mean())
    return model


def predicted(model: HistGradientBoostingRegressor, candidates: Candidates) -> NDArray[np.float64]:
    """The IoU that a regressor expects of each candidate."""
    return np.asarray(model.predict(candidates.features)) if len(candidates) else np.zeros(0)
