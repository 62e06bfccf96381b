"""Hausdorff distances against SciPy's and brute force over all pixels."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist, directed_hausdorff

from histofold import metrics

Labels = NDArray[np.int32]


def _hausdorff(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    a, b = np.argwhere(first), np.argwhere(second)
    return max(directed_hausdorff(a, b)[0], directed_hausdorff(b, a)[0])


def _object_loop(truth: Labels, prediction: Labels) -> float:
    def side(own: Labels, other: Labels) -> float:
        total = 0.0
        others = [other == value for value in np.unique(other) if value]
        for mask in (own == value for value in np.unique(own) if value):
            overlaps = [(mask & o).sum() for o in others]
            best = int(np.argmax(overlaps))
            found = _hausdorff(mask, others[best]) if overlaps[best] else min(_hausdorff(mask, o) for o in others)
            total += mask.sum() * found
        return total / (own > 0).sum()

    return (side(truth, prediction) + side(prediction, truth)) / 2


def test_object_hausdorff_agrees_with_scipy_over_all_pixels(pairs: list[tuple[Labels, Labels]]) -> None:
    for truth, prediction in pairs[1:9]:
        assert metrics.object_hausdorff(truth, prediction) == pytest.approx(_object_loop(truth, prediction))


def test_object_hausdorff_by_hand() -> None:
    truth, prediction = np.zeros((2, 10, 40), np.int64)
    truth[2:5, 2:5] = 3
    prediction[2:5, 2:9] = 8  # 4 columns too far
    prediction[2:5, 30:33] = 2**30  # overlaps nothing; 28 columns from the only true object
    assert metrics.object_hausdorff(truth, prediction) == pytest.approx((4 + (21 * 4 + 9 * 28) / 30) / 2)


def test_a_ring_and_the_disc_that_fills_it() -> None:
    """The farthest pixel lies inside the disc, not on its outline: outlines alone would say 0."""
    y, x = np.indices((31, 31))
    disc = (y - 15) ** 2 + (x - 15) ** 2 <= 12**2
    ring = disc & ((y - 15) ** 2 + (x - 15) ** 2 > 9**2)
    assert metrics.object_hausdorff(disc.astype(int), ring.astype(int)) == pytest.approx(_hausdorff(disc, ring))
    assert _hausdorff(disc, ring) > 9


def test_empty_images_of_object_hausdorff() -> None:
    empty, full = np.zeros((3, 4), int), np.ones((3, 4), int)
    assert metrics.object_hausdorff(empty, empty) == 0
    assert metrics.object_hausdorff(full, full) == 0
    assert metrics.object_hausdorff(empty, full) == metrics.object_hausdorff(full, empty) == 5


def test_hd95_agrees_with_all_distances_between_outlines(pairs: list[tuple[Labels, Labels]]) -> None:
    for truth, prediction in pairs[:6]:
        outlines = []
        for mask in (truth > 0, prediction > 0):
            outlines.append(np.argwhere(mask & ~binary_erosion(mask)))
        if not len(outlines[0]) or not len(outlines[1]):
            continue
        distances = cdist(*outlines)
        expected = max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))
        assert metrics.hd95(truth, prediction) == pytest.approx(expected)


def test_hd95_by_hand_and_empty() -> None:
    truth, prediction = np.zeros((2, 12, 60), np.uint8)
    truth[3, 5:45], prediction[5, 5:45] = 1, 1
    assert metrics.hd95(truth, prediction) == 2
    prediction[11, 59] = 1  # one pixel in 41 is less than 5 %
    assert metrics.hd95(truth, prediction) == 2
    assert metrics.hd95(truth, np.zeros_like(truth)) == pytest.approx(np.hypot(12, 60))
    assert metrics.hd95(np.zeros_like(truth), np.zeros_like(truth)) == 0
