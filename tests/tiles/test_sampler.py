from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from histofold.tiles.sampler import EpochSampler, epoch_rows, even_out, foreground_bins, weights_of


def tiles(foreground: list[float], side: int = 256) -> pd.DataFrame:
    count = len(foreground)
    columns = {"foreground": foreground, "height": [side] * count, "width": [side] * count, "scale": [1.0] * count}
    return pd.DataFrame(columns)


def test_what_has_no_foreground_is_a_bin_of_its_own() -> None:
    codes = foreground_bins(np.array([0.0, 0.0, 0.1, 0.2, 0.3, 0.4]), bins=3)
    assert codes.tolist() == [0, 0, 1, 1, 2, 2]


def test_bins_are_drawn_equally_often_however_rare() -> None:
    table = tiles([0.0] * 90 + [0.5] * 10)
    weights = weights_of(table, bins=2, crop=256)
    assert weights[:90].sum() == np.float64(0.5).item()
    rows = epoch_rows(weights, 1000, seed=0, epoch=0)
    assert abs(int((rows >= 90).sum()) - 500) <= 1


def test_balance_zero_draws_every_tile_alike() -> None:
    assert np.allclose(weights_of(tiles([0.0] * 9 + [0.5]), bins=0, crop=256), 0.1)


def test_larger_images_count_by_the_square_root_of_their_crops() -> None:
    table = pd.concat([tiles([0.1]), tiles([0.1], side=1024)], ignore_index=True)
    weights = weights_of(table, bins=0, crop=256)
    assert np.isclose(weights[1] / weights[0], 4.0)


def test_rare_strata_are_raised_by_a_power_of_their_share() -> None:
    weights, strata = np.full(100, 0.01), ["common"] * 81 + ["rare"] * 19
    assert np.allclose(even_out(weights, strata, 0.0), weights)
    assert np.isclose(even_out(weights, strata, 1.0)[81:].sum(), 0.5)
    half = even_out(weights, strata, 0.5)
    assert np.isclose(half[81:].sum() / half[:81].sum(), np.sqrt(19 / 81))
    assert np.isclose(half.sum(), 1.0)


def test_raised_strata_keep_their_proportions_within() -> None:
    weights = np.array([0.6, 0.2, 0.15, 0.05, 0.0])
    raised = even_out(weights, ["a", "a", "b", "b", "none is drawn of this one"], 1.0)
    assert np.allclose(raised, [0.375, 0.125, 0.375, 0.125, 0.0])


@given(st.integers(1, 200), st.integers(1, 500), st.integers(0, 5), st.integers(0, 9))
def test_systematic_draws_stay_within_one_of_what_is_expected(count: int, draws: int, seed: int, epoch: int) -> None:
    weights = np.random.default_rng(seed).random(count) + 1e-3
    weights /= weights.sum()
    found = np.bincount(epoch_rows(weights, draws, seed, epoch), minlength=count)
    assert found.sum() == draws
    assert (np.abs(found - weights * draws) < 1 + 1e-9).all()


def test_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    weights = np.full(50, 0.02)
    first = epoch_rows(weights, 40, 3, 7)
    assert np.array_equal(first, epoch_rows(weights, 40, 3, 7))
    assert not np.array_equal(first, epoch_rows(weights, 40, 3, 8))
    assert not np.array_equal(first, epoch_rows(weights, 40, 4, 7))


@given(st.integers(1, 100), st.integers(1, 4), st.integers(0, 30))
def test_ranks_share_an_epoch_and_a_resumed_one_goes_on(count: int, ranks: int, first: int) -> None:
    whole = [list(EpochSampler(count, 2, rank, ranks)) for rank in range(ranks)]
    assert sorted(index for part in whole for _, index in part) == list(range(count))
    for rank in range(ranks):
        rest = EpochSampler(count, 2, rank, ranks, first)
        assert list(rest) == whole[rank][first:]
        assert len(rest) == len(whole[rank][first:])
