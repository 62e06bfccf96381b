"""Weights along an axis: exact cover, positive, sum 1, for any length, tile, step and margin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histofold.errors import ConfigError
from histofold.inference import blending


@given(
    length=st.integers(1, 700),
    tiles=st.integers(1, 8),
    divisor=st.sampled_from([1, 2, 8, 16, 32]),
    share=st.floats(0.05, 1.0),
    margin=st.integers(0, 100),
    window=st.sampled_from(blending.WINDOWS),
)
def test_weights_cover_each_pixel_and_sum_to_one(
    length: int, tiles: int, divisor: int, share: float, margin: int, window: str
) -> None:
    tile = tiles * divisor
    margin = min(margin, (tile - 1) // 2)
    step = max(1, round(share * tile))
    axis = blending.axis(length, tile, step, margin, window, divisor)
    total = np.zeros(length)
    for start, low, high, weights in zip(axis.starts, axis.low, axis.high, axis.weights, strict=True):
        assert 0 <= start + low < start + high <= length
        assert 0 <= low < high <= axis.tile
        assert (weights > 0).all()
        assert weights.shape == (high - low,)
        total[start + low : start + high] += weights
        if start > 0:
            assert low == margin
        if start + axis.tile < length:
            assert high == axis.tile - margin
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert axis.tile % divisor == 0
    assert min(tile, 2 * divisor) <= axis.tile <= max(tile, divisor)


def test_a_multiple_of_the_tile_needs_no_tile_beyond_it() -> None:
    assert blending.axis(512, 256, 256, 0, "hann").starts == (0, 256)
    assert blending.axis(513, 256, 256, 0, "hann").starts == (0, 256, 257)


def test_small_image_shrinks_the_tile_to_the_divisor() -> None:
    axis = blending.axis(70, 256, 192, 16, "hann", divisor=32)
    assert axis.tile == 96
    assert axis.starts == (-13,)
    assert axis.padded
    assert (axis.low, axis.high) == ((13,), (83,))


def test_the_tile_of_a_tiny_image_has_two_cells_unless_it_was_smaller() -> None:
    assert [blending.axis(20, tile, tile, 0, "hann", divisor=32).tile for tile in (256, 64, 32)] == [64, 64, 32]


@given(st.integers(1, 40), st.integers(0, 200))
def test_reflection_is_numpys(length: int, pad: int) -> None:
    expected = np.pad(np.arange(length), pad, mode="reflect" if length > 1 else "edge")
    np.testing.assert_array_equal(blending.reflect(np.arange(-pad, length + pad), length), expected)


@pytest.mark.parametrize("name", blending.WINDOWS)
def test_windows_are_positive_and_symmetric(name: str) -> None:
    for size in (1, 2, 7, 256):
        window = blending.window(name, size)
        assert (window > 0).all()
        np.testing.assert_allclose(window, window[::-1])


def test_unknown_window_is_named() -> None:
    with pytest.raises(ConfigError, match=r"predict\.window='gauss'"):
        blending.window("gauss", 8)


def test_stated_costs() -> None:
    assert blending.cost(256, 256, 0) == 1
    assert blending.cost(256, 192, 0) == pytest.approx(1.78, abs=0.01)
    assert blending.cost(256, 128, 0) == 4
    assert blending.cost(1024, 1024, 32) == pytest.approx(1.14, abs=0.01)
    assert blending.cost(256, 256, 64) == 4
