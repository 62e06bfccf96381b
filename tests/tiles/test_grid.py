"""Tiles cover exactly, none is useless, and sizes do not depend on rounding."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histofold.errors import ConfigError
from histofold.tiles.grid import Grid, rational, reduced, shifted_starts, starts

LENGTHS = st.integers(1, 5000)


@given(length=LENGTHS, tile=st.integers(1, 700), data=st.data())
def test_starts_cover_everything_and_nothing_beyond(length: int, tile: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(1, tile))
    found = starts(length, tile, step)
    covered = np.zeros(max(length, tile), bool)
    for start in found:
        covered[start : start + tile] = True
    assert covered[:length].all()
    assert found[0] == 0
    if length <= tile:
        assert found == [0]
        return
    assert found[-1] + tile == length
    distances = np.diff(found)
    assert (distances > 0).all()  # no tile twice
    assert (distances[:-1] == step).all()
    assert distances[-1] <= step
    # One tile fewer at this step would leave pixels uncovered.
    assert (len(found) - 2) * step + tile < length


@given(tiles=st.integers(1, 50), tile=st.integers(1, 600))
def test_a_multiple_of_the_tile_needs_no_further_tile(tiles: int, tile: int) -> None:
    """The winner's `pad = size - h % size` adds an empty row of tiles here."""
    assert starts(tiles * tile, tile, tile) == [index * tile for index in range(tiles)]


@pytest.mark.parametrize(("length", "expected"), [(256, [0]), (257, [0, 1]), (255, [0]), (512, [0, 256])])
def test_starts_by_hand(length: int, expected: list[int]) -> None:
    assert starts(length, 256, 256) == expected


@pytest.mark.parametrize("step", [0, -1, 257])
def test_a_step_that_leaves_gaps_is_refused(step: int) -> None:
    with pytest.raises(ConfigError, match=f"step={step}"):
        starts(1000, 256, step)


@given(length=LENGTHS, tile=st.integers(2, 600))
def test_shifted_tiles_lie_within(length: int, tile: int) -> None:
    for start in shifted_starts(length, tile):
        assert start % tile == tile // 2
        assert start + tile <= length


def test_a_grid_is_rows_times_columns() -> None:
    grid = Grid(300, 513, 256, 256)
    assert len(grid) == 6
    assert list(grid) == [(0, 0), (0, 256), (0, 257), (44, 0), (44, 256), (44, 257)]


@given(length=LENGTHS, scale=st.floats(1, 1024))
def test_reduced_is_length_over_scale_rounded_up(length: int, scale: float) -> None:
    size = reduced(length, scale)
    exact = rational(scale)
    assert (size - 1) * exact < length <= size * exact
    assert abs(float(exact) - scale) < 0.25


@pytest.mark.parametrize(
    ("length", "scale", "size"), [(13, 1.3, 10), (21, 2.1, 10), (300, 0.1 * 3 * 10, 100), (10, 3, 4)]
)
def test_decimal_scales_are_meant_as_they_are_written(length: int, scale: float, size: int) -> None:
    assert reduced(length, scale) == size


def test_scales_are_read_as_fractions() -> None:
    assert rational(1.3) == Fraction(13, 10)
    assert rational(8 / 3) == Fraction(8, 3)
    assert rational(Fraction(7, 2)) == Fraction(7, 2)


@pytest.mark.parametrize("scale", [0.99, 0, -4, float("nan"), float("inf"), 1025])
def test_an_impossible_scale_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="between 1"):
        rational(scale)
