"""The instance weight map: pixels between two close neighbours weigh up to eleven times as much."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int32]
Found = tuple[np.int32, np.int32]

NONE = np.int32(1 << 30)
"""Squared distance to an instance that is not there."""


@dataclass(frozen=True)
class WeightMap:
    """w = 1 + weight0 · exp(-(d1 + d2)² / (2 sigma²)), d1 and d2 the distances in pixels to the two nearest instances.

    U-Net's border weight (Ronneberger et al., 2015) in the form of FullNet (Qu et al., MICCAI 2019): at every pixel,
    distances to the outlines of instances, also from inside; no class balance; 1 everywhere with fewer than two.

    Theirs is made of the whole image and cropped with it. This one is made of what it is given, a crop in training: an
    instance that the crop cuts has no outline at the cut, and neighbours outside of the crop do not count.
    """

    sigma: float = 5.0
    weight0: float = 10.0

    def __call__(self, labels: NDArray[np.integer]) -> NDArray[np.float32]:
        """The weights (H, W) float32 of an instance label image (H, W), 0 for background."""
        # Beyond this sum of distances the exponential is below half the last bit of a float32 one.
        reach = self.sigma * np.sqrt(2 * np.log(max(self.weight0, 1.0) * 2.0**25))
        squares, owners = _along_columns(np.ascontiguousarray(labels, np.int32))
        weights: NDArray[np.float32] = _weights(squares, owners, self.sigma, self.weight0, float(reach))
        return weights


@numba.njit(cache=True)
def _along_columns(labels: Labels) -> tuple[Labels, Labels]:
    """Squared distances (2, H, W) to the nearest outlines of two different instances in the same column, and whose.

    The two nearest of the whole image are among the columns' two nearest: were an instance third in the column where it
    comes nearest, the two before it would be nearer in the image, too. Where there is none, the distance is `NONE`.
    """
    height, width = labels.shape
    squares, owners = np.full((2, height, width), NONE, np.int32), np.zeros((2, height, width), np.int32)
    for step in (1, -1):
        seen, last = np.zeros((2, width), np.int32), np.zeros((2, width), np.int32)
        for turn in range(height):
            y = turn if step == 1 else height - 1 - turn
            for x in range(width):
                label = labels[y, x]
                if label > 0 and _is_outline(labels, y, x):
                    if seen[0, x] != label:
                        seen[1, x], last[1, x] = seen[0, x], last[0, x]
                    seen[0, x], last[0, x] = label, y
                near, far = (squares[0, y, x], owners[0, y, x]), (squares[1, y, x], owners[1, y, x])
                for place in range(2):
                    if seen[place, x] > 0:
                        near, far = _two_nearest(near, far, np.int32((y - last[place, x]) ** 2), seen[place, x])
                squares[0, y, x], owners[0, y, x] = near
                squares[1, y, x], owners[1, y, x] = far
    return squares, owners


@numba.njit(cache=True)
def _is_outline(labels: Labels, y: int, x: int) -> bool:
    """Whether a pixel of an instance touches another label by a side; what lies beyond the edge is not known."""
    height, width = labels.shape
    label = labels[y, x]
    return bool(
        (y > 0 and labels[y - 1, x] != label)
        or (y < height - 1 and labels[y + 1, x] != label)
        or (x > 0 and labels[y, x - 1] != label)
        or (x < width - 1 and labels[y, x + 1] != label)
    )


@numba.njit(cache=True)
def _two_nearest(near: Found, far: Found, square: np.int32, owner: np.int32) -> tuple[Found, Found]:
    """The two nearest different instances after one more was seen; each is (squared distance, owner)."""
    if square >= far[0]:
        return near, far
    if owner == near[1]:
        return (min(near[0], square), owner), far
    if square < near[0]:
        return (square, owner), near
    return near, (square, owner)


@numba.njit(cache=True)
def _weights(squares: Labels, owners: Labels, sigma: float, weight0: float, reach: float) -> NDArray[np.float32]:
    """The weights from the columns' two nearest; the search in a row goes outwards until going on cannot help."""
    height, width = squares.shape[1:]
    out = np.ones((height, width), np.float32)
    beyond = np.int32(reach**2)
    for y in range(height):
        for x in range(width):
            near, far = (beyond, np.int32(0)), (beyond, np.int32(0))
            # Of two distances whose sum is within reach, the smaller one is within half of it.
            step, limit = np.int32(0), reach / 2
            while step <= limit:
                changed = False
                for column in (x - step, x + step):
                    if 0 <= column < width and step * step + squares[0, y, column] < far[0]:
                        for place in range(2):
                            square = np.int32(step * step + squares[place, y, column])
                            near, far = _two_nearest(near, far, square, owners[place, y, column])
                        changed = True
                if changed:
                    limit = min(reach - min(np.sqrt(near[0]), reach / 2), np.sqrt(far[0]))
                step += np.int32(1)
            if far[1] > 0:
                total = np.sqrt(near[0]) + np.sqrt(far[0])
                out[y, x] = 1 + weight0 * np.exp(-(total**2) / (2 * sigma**2))
    return out


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of one instance (H, W) that touch its outside by a side; beyond the edge it goes on as it is there."""
    padded = np.pad(mask, 1, mode="edge")
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
