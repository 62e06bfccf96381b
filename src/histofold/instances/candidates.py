"""Candidates of an image, from several settings of its decoder, and what can be measured on each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from histofold.instances.base import Bands, Decoder
from histofold.instances.cleanup import Labels

SAME = 0.95
"""IoU above which two candidates of an image are one."""

AROUND = 31
"""Side in pixels of the window that tells how bright the neighbourhood is."""

Box = tuple[int, int, int, int]
"""Top, left, bottom, right."""


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


def find(image: NDArray[np.uint8], bands: Bands, decoders: Sequence[Decoder]) -> Candidates:
    """Candidates of an image (H, W, 3) from its bands (H, W) under every decoder, near-copies left out."""
    images = [decoder(bands) for decoder in decoders]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    layers = [grey, cv2.blur(grey, (AROUND, AROUND)), *(np.asarray(band, np.float32) for band in bands.values())]
    boxes, masks, rows = [], [], []
    for number, labels in enumerate(images):
        agreement = np.stack([best_iou(labels, other) for other in images], axis=1)
        others = np.delete(agreement, number, axis=1)
        earlier = agreement[:, :number].max(axis=1, initial=0.0)
        for label, box, mask in _objects(labels):
            if earlier[label] <= SAME:
                boxes.append(box)
                masks.append(mask)
                rows.append([*_shape(mask, box, grey.shape), *_levels(layers, box, mask), *_summary(others[label])])
    return Candidates(
        (grey.shape[0], grey.shape[1]),
        np.array(boxes, np.int64).reshape(-1, 4),
        tuple(masks),
        np.array(rows, np.float64).reshape(len(rows), len(rows[0]) if rows else 0),
    )


def best_iou(labels: Labels, other: NDArray[np.integer]) -> NDArray[np.float64]:
    """Best IoU of each label (index 0..max) with an instance of another label image; 0 where it meets none."""
    count = int(other.max(initial=0)) + 1
    both = (labels > 0) & (other > 0)
    pairs, overlaps = np.unique(labels[both].astype(np.int64) * count + other[both], return_counts=True)
    first, second = np.divmod(pairs, count)
    union = np.bincount(labels.ravel())[first] + np.bincount(other.ravel())[second] - overlaps
    best = np.zeros(int(labels.max(initial=0)) + 1)
    np.maximum.at(best, first, overlaps / union)
    return best


def _objects(labels: Labels) -> list[tuple[int, Box, NDArray[np.bool_]]]:
    """Label, box and mask of each instance."""
    from scipy.ndimage import find_objects

    found = []
    for label, place in enumerate(find_objects(labels), 1):
        if place is not None:
            rows, columns = place
            box = (rows.start, columns.start, rows.stop, columns.stop)
            found.append((label, box, labels[place] == label))
    return found


def _summary(values: NDArray[np.float64]) -> list[float]:
    return [float(values.mean()), float(values.min()), float(values.max())] if len(values) else [np.nan] * 3


def _shape(mask: NDArray[np.bool_], box: Box, size: tuple[int, ...]) -> list[float]:
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


def _levels(layers: Sequence[NDArray[np.float32]], box: Box, mask: NDArray[np.bool_]) -> list[float]:
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
