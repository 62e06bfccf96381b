"""The reduction against a reference that is written as one would on paper."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from histofold.errors import ConfigError
from histofold.slides.reduce import Axis, Reducer, reduce_array
from histofold.tiles.grid import rational, reduced

SCALES = st.one_of(st.integers(1, 9).map(float), st.sampled_from([1.25, 1.5, 2.5, 4 / 3, 8 / 3]), st.floats(1.0, 12.0))


def exact_average(image: NDArray[np.uint8], scale: float) -> NDArray[np.int64]:
    """Area average with rational numbers, rounded half up; slow and without any rounding before the end."""
    fraction = rational(scale)

    def cells(length: int) -> list[list[tuple[int, Fraction]]]:
        found = []
        for index in range(reduced(length, scale)):
            low, high = index * fraction, min((index + 1) * fraction, Fraction(length))
            pixels = range(int(low), -int(-high // 1))
            found.append([(pixel, min(Fraction(pixel + 1), high) - max(Fraction(pixel), low)) for pixel in pixels])
        return found

    rows, columns = cells(image.shape[0]), cells(image.shape[1])
    out = np.empty((len(rows), len(columns), image.shape[2]), np.int64)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            total = sum(wy * wx * image[y, x].astype(object) for y, wy in row for x, wx in column)
            area = sum(wy for _, wy in row) * sum(wx for _, wx in column)
            out[i, j] = [int(value / area + Fraction(1, 2)) for value in total]
    return out


@settings(deadline=None, max_examples=60)
@given(height=st.integers(1, 23), width=st.integers(1, 23), scale=SCALES, seed=st.integers(0, 99))
def test_reduction_is_the_exact_average_rounded_half_up(height: int, width: int, scale: float, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    np.testing.assert_array_equal(reduce_array(image, scale), exact_average(image, scale))


@settings(deadline=None, max_examples=60)
@given(height=st.integers(1, 60), scale=SCALES, cuts=st.lists(st.integers(1, 17), min_size=1), seed=st.integers(0, 99))
def test_chunks_do_not_matter(height: int, scale: float, cuts: list[int], seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, 7, 3), np.uint8)
    fraction = rational(scale)
    rows = Axis.of(height, height, fraction, reduced(height, scale))
    columns = Axis.of(7, 7, fraction, reduced(7, scale))
    reducer, parts, top = Reducer(rows, columns, 7), [], 0
    while top < height:
        bottom = min(height, top + cuts[len(parts) % len(cuts)])
        parts.append(reducer.push(np.ascontiguousarray(image[top:bottom].transpose(2, 0, 1))))
        top = bottom
    np.testing.assert_array_equal(np.concatenate(parts), reduce_array(image, scale))


def test_a_checkerboard_becomes_grey_and_not_black_or_white() -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.unique(reduce_array(np.stack([board] * 3, axis=2), 2)).tolist() == [128]


@pytest.mark.parametrize("scale", [1.5, 3, 7.3, 40, 300.5, 1000])
def test_a_white_image_stays_white_at_every_scale(scale: float) -> None:
    white = np.full((1203, 905, 3), 255, np.uint8)
    out = reduce_array(white, scale)
    assert out.shape == (reduced(1203, scale), reduced(905, scale), 3)
    assert np.unique(out).tolist() == [255]


def test_the_reference_of_the_other_tests_agrees(naive: Callable[..., NDArray[np.float64]]) -> None:
    image = np.random.default_rng(3).integers(0, 256, (17, 19, 3), np.uint8)
    for scale in (1.5, 2.0, 3.7):
        assert np.abs(exact_average(image, scale) - naive(image, scale)).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("scale", [0.5, 0, -1, float("nan"), float("inf"), 5000])
def test_an_impossible_scale_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="scale="):
        reduce_array(np.zeros((4, 4, 3), np.uint8), scale)
