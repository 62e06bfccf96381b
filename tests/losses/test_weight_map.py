"""The weight map between neighbours against its definition, one distance transform for each instance."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from histofold.losses.weight_map import WeightMap, naive


def discs(side: int, count: int, seed: int) -> NDArray[np.int32]:
    random = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    for label in range(1, count + 1):
        x, y, radius = (int(value) for value in random.integers((0, 0, 3), (side, side, 11)))
        cv2.circle(labels, (x, y), radius, label, -1)
    return labels


@pytest.mark.parametrize("sigma", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("count", [2, 3, 40])
def test_the_fast_map_is_the_definition(sigma: float, count: int) -> None:
    labels = discs(120, count, count)
    assert np.allclose(WeightMap(sigma)(labels), naive(labels, sigma, 10.0), atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4)))
def test_any_labels_have_the_defined_weights(labels: NDArray[np.int32]) -> None:
    assert np.allclose(WeightMap(2.0, 7.0)(labels), naive(labels, 2.0, 7.0), atol=1e-4)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_instances_weigh_one_everywhere(count: int) -> None:
    assert (WeightMap()(discs(64, count, 1)) == 1).all()


def test_the_height_between_touching_nuclei_and_the_width_between_distant_ones() -> None:
    labels = np.zeros((21, 60), np.int32)
    labels[:, 10:20], labels[:, 20:30], labels[:, 50:] = 1, 2, 3
    weights = WeightMap(sigma=5.0)(labels)
    assert weights[10, 19] == pytest.approx(1 + 10 * np.exp(-1 / 50))
    assert weights[10, 40] == pytest.approx(1 + 10 * np.exp(-(21**2) / 50), abs=1e-5)
    assert weights.dtype == np.float32


def test_labels_of_any_integer_type_and_with_gaps() -> None:
    labels = discs(64, 9, 3)
    spread = np.where(labels > 0, labels * 100, 0)
    assert np.array_equal(WeightMap()(spread.astype(np.uint16)), WeightMap()(labels))


def test_the_edge_of_a_crop_is_no_outline() -> None:
    """Two bars that run through a crop: a row at its edge weighs as the one in the middle."""
    labels = np.zeros((40, 40), np.int32)
    labels[:, 6:16], labels[:, 20:30] = 1, 2
    for crop in (labels, np.ascontiguousarray(labels.T)):
        weights = WeightMap(sigma=5.0)(crop)
        rows = weights if crop is labels else weights.T
        assert np.array_equal(rows[0], rows[20])
        assert np.array_equal(rows[-1], rows[20])
        assert rows[0, 15] == pytest.approx(1 + 10 * np.exp(-(5**2) / 50))
    # Where a crop reaches over the image, an instance ends all the same.
    over = np.pad(labels[:10], ((5, 0), (0, 0)))
    assert WeightMap()(over)[5, 10] == pytest.approx(1 + 10 * np.exp(-(10**2) / 50))
