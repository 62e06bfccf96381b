"""The instance weight map: pixels between two close neighbours weigh up to eleven times as much."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class WeightMap:
    """w = 1 + weight0 · exp(-(d1 + d2)² / (2 sigma²)), d1 and d2 the distances in pixels to the two nearest instances.

    U-Net's border weight (Ronneberger et al., 2015) in the form of FullNet (Qu et al., MICCAI 2019): at every pixel,
    distances to the outlines of instances, also from inside; no class balance; 1 everywhere with fewer than two.
    """

    sigma: float = 5.0
    weight0: float = 10.0

    def __call__(self, labels: NDArray[np.integer]) -> NDArray[np.float32]:
        """The weights (H, W) float32 of an instance label image (H, W), 0 for background."""
        return naive(labels, self.sigma, self.weight0)


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of one instance (H, W) that touch its outside by a side, or the border of the image."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def naive(labels: NDArray[np.integer], sigma: float, weight0: float) -> NDArray[np.float32]:
    """The definition, one distance transform of the whole image for each instance: slow, and the reference."""
    nearest = np.full((2, *labels.shape), np.inf, np.float64)
    for label in np.unique(labels[labels > 0]):
        away = (~outline(labels == label)).astype(np.uint8)
        distance = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(np.float64)
        nearest = np.sort(np.concatenate([nearest, distance[None]]), axis=0)[:2]
    weights = 1 + weight0 * np.exp(-np.square(nearest.sum(0)) / (2 * sigma**2))
    return weights.astype(np.float32)
