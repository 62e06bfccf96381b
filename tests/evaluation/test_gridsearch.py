"""Coarse-to-fine choices of settings for all samples and for strata: as good as trying everything, without a leak."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from histofold import instances
from histofold.evaluation import tune
from histofold.evaluation.gridsearch import (
    LEAST,
    GridSearch,
    Setting,
    choose,
    choose_strata,
    coarse,
    near,
    positions,
    sparse,
    strides,
)

Scores = NDArray[np.float64]
GRID = [{"core": c / 10, "size": s, "min_size": m} for c in range(3, 8) for s in (1, 5) for m in (5, 10)]


def landscape(tops: Scores, asked: list[Setting] | None = None) -> Callable[[list[Setting]], Scores]:
    """Scores that fall with the distance of `core` from each sample's own best one; notes what was asked for."""

    def score(settings: list[Setting]) -> Scores:
        if asked is not None:
            asked.extend(settings)
        cores = np.array([setting["core"] for setting in settings])
        rest = np.array([0.01 * (setting["size"] == 5) + 0.01 * (setting["min_size"] == 10) for setting in settings])
        return 1 - np.abs(cores[None] - tops[:, None]) + rest

    return score


@pytest.mark.parametrize("name", instances.names())
def test_every_setting_is_reached_from_the_coarse_ones(name: str) -> None:
    """By steps of half the stride each, down to one."""
    grid = instances.grid(name, ("border",))
    places = positions(grid)
    reached = known = np.flatnonzero(coarse(places))
    stride = strides(places)
    while (stride > 1).any():
        stride = np.maximum(1, stride // 2)
        reached = np.unique(np.concatenate([reached, *(near(places, int(at), stride) for at in reached)]))
    assert len(reached) == len(grid)
    assert len(known) < len(grid) / 2


@pytest.mark.parametrize("top", [0.2, 0.23, 0.4, 0.5, 0.56, 0.79, 0.85])
def test_the_best_of_many_values_is_found_by_halving_the_stride(top: float) -> None:
    grid = [{"threshold": at / 20} for at in range(4, 18)]
    asked: list[Setting] = []

    def score(settings: list[Setting]) -> Scores:
        asked.extend(settings)
        return np.array([[1 - abs(setting["threshold"] - top) for setting in settings]] * 3)

    best = GridSearch(grid, score).best({"all": np.ones(3, bool)})["all"]
    assert grid[best]["threshold"] == min((at / 20 for at in range(4, 18)), key=lambda value: abs(value - top))
    assert len(asked) <= 8, "4 of 14 at first, then two on either side, then one"


@pytest.mark.parametrize("top", [0.3, 0.41, 0.5, 0.6, 0.68])
def test_the_best_of_all_is_found_with_fewer_settings(top: float) -> None:
    asked: list[Setting] = []
    search = GridSearch(GRID, landscape(np.full(4, top), asked))
    best = search.best({"all": np.ones(4, bool)})["all"]
    assert GRID[best] == {"core": round(top, 1), "size": 5, "min_size": 10}
    assert len(asked) == len({str(setting) for setting in asked}), "no setting is scored twice"
    assert len(asked) <= len(GRID)


def test_a_users_own_value_between_the_steps_is_tried() -> None:
    own = {"core": 0.53, "size": 5, "min_size": 10}
    search = GridSearch([own, *GRID], landscape(np.full(3, 0.53)))
    assert search.best({"all": np.ones(3, bool)})["all"] == 0


def test_tuning_never_ends_below_the_users_own_setting() -> None:
    own = GRID[6]
    assert not coarse(positions(GRID))[6]

    def score(settings: list[Setting]) -> Scores:
        return np.array([[float(setting == own) for setting in settings]] * 3)

    # Where all coarse settings fail alike, nothing points to the one that works.
    assert GridSearch(GRID, score, own).best({"all": np.ones(3, bool)})["all"] == 6


def test_what_changes_no_score_stays_as_the_user_set_it() -> None:
    own = {"core": 0.5, "size": 1, "min_size": 10}
    grid = [{"core": c / 10, "size": s, "min_size": m} for c in range(3, 10) for s in (1, 5) for m in (5, 10, 20)]

    def score(settings: list[Setting]) -> Scores:
        return np.array([[float(setting["core"] >= 0.65) for setting in settings]] * 3)

    best = GridSearch(grid, score, own).best({"all": np.ones(3, bool)})["all"]
    assert grid[best] == {"core": 0.7, "size": 1, "min_size": 10}, "the nearest core that is as good, and nothing else"


def test_strata_get_their_own_setting_and_small_ones_that_of_all() -> None:
    strata = np.array(["dark"] * 40 + ["light"] * 20 + ["rare"] * 4)
    tops = np.where(strata == "dark", 0.3, np.where(strata == "light", 0.7, 0.5))
    folds = np.arange(len(strata)) % 4
    one = choose(GridSearch(GRID, landscape(tops)), folds, strata)
    each = choose(GridSearch(GRID, landscape(tops)), folds, strata, per_stratum=True)
    assert not one.strata
    assert {name: GRID[at]["core"] for name, at in each.strata.items()} == {"dark": 0.3, "light": 0.7}
    assert each.cross_fitted > one.cross_fitted
    assert each.optimistic > one.optimistic
    rare = strata == "rare"
    assert (each.own[rare] == one.own[rare]).all()
    assert each.best == one.best


def test_a_stratum_needs_its_images_in_the_folds_that_choose() -> None:
    strata = np.array(["few"] * LEAST + ["many"] * 30)
    tops = np.where(strata == "few", 0.7, 0.3)
    found = choose(GridSearch(GRID, landscape(tops)), np.arange(len(strata)) % 2, strata, per_stratum=True)
    assert GRID[found.strata["few"]]["core"] == 0.7, "all folds together have enough"
    assert {GRID[at]["core"] for at in found.own[strata == "few"]} == {0.3}, "one fold alone has not"


@pytest.mark.parametrize("per_stratum", [False, True])
def test_a_folds_own_truth_does_not_touch_its_setting(per_stratum: bool) -> None:
    """Whatever the scores of one fold are, that fold gets the same setting; the other folds' settings may change."""
    random = np.random.default_rng(3)
    strata = np.repeat(["a", "b"], 45)
    folds = np.tile(np.arange(3), 30)
    tops = random.uniform(0.3, 0.7, len(folds))
    before = choose(GridSearch(GRID, landscape(tops)), folds, strata, per_stratum)
    for poison in (0.3, 0.44, 0.7):
        changed = np.where(folds == 1, poison, tops)
        after = choose(GridSearch(GRID, landscape(changed)), folds, strata, per_stratum)
        assert np.array_equal(before.own[folds == 1], after.own[folds == 1])
    assert not np.array_equal(before.own[folds != 1], after.own[folds != 1])


def test_a_single_fold_chooses_for_itself() -> None:
    found = choose(GridSearch(GRID, landscape(np.full(5, 0.4))), np.zeros(5, int), np.full(5, "a"))
    assert {GRID[at]["core"] for at in found.own} == {0.4}


def test_a_sparse_grid_varies_what_has_many_values_only() -> None:
    grid = instances.grid("watershed")
    around = {**grid[0], "min_core": 5, "min_size": 180}  # a size of the user's own
    found = sparse(grid, around)
    assert len(found) == 16
    assert {(setting["core"], setting["threshold"]) for setting in found} == {
        (core, threshold) for core in (0.3, 0.5, 0.7, 0.9) for threshold in (0.1, 0.3, 0.5, 0.7)
    }
    kept = ("border_weight", "min_core", "min_size")
    assert {tuple(setting[name] for name in kept) for setting in found} == {tuple(around[name] for name in kept)}


def mixed(seed: int = 0) -> tuple[Scores, NDArray[np.int64], NDArray[np.str_]]:
    """Best settings of two strata over four folds: 60 dark samples, 40 light ones."""
    random = np.random.default_rng(seed)
    strata = np.array(["dark"] * 60 + ["light"] * 40)
    tops = np.where(strata == "dark", 0.3, 0.7) + random.normal(0, 0.05, len(strata))
    return tops, np.arange(len(strata)) % 4, strata


def each_alone(samples: NDArray[np.str_]) -> NDArray[np.str_]:
    """Every sample as a group of its own."""
    return np.arange(len(samples)).astype(str)


def test_a_gain_that_one_patient_alone_brings_is_no_reason_for_settings_for_strata() -> None:
    strata, folds = np.array(["dark"] * 60 + ["light"] * 40), np.arange(100) % 4
    one_patient = np.arange(100) >= 88

    def score(settings: list[Setting]) -> Scores:
        high = np.array([setting["core"] == 0.7 for setting in settings])
        return 0.5 + np.where(one_patient, 0.4, -0.06)[:, None] * high[None]

    search = GridSearch(GRID, score)
    one = choose(search, folds, strata)
    kept, finer = choose_strata(search, folds, strata, np.where(one_patient, "p", each_alone(strata)), one)
    assert finer.cross_fitted > one.cross_fitted + 0.02
    assert not kept.strata
    np.testing.assert_array_equal(kept.own, one.own)
    kept, _ = choose_strata(search, folds, strata, each_alone(strata), one)
    assert kept.strata, "twelve patients would be one"


def test_strata_that_differ_get_settings_in_every_fold_and_equal_ones_do_not() -> None:
    tops, folds, strata = mixed()
    search = GridSearch(GRID, landscape(tops))
    one = choose(search, folds, strata)
    kept, finer = choose_strata(search, folds, strata, each_alone(strata), one)
    assert set(kept.strata) == {"dark", "light"}
    np.testing.assert_array_equal(kept.own, finer.own)
    assert kept.cross_fitted > one.cross_fitted
    alike = GridSearch(GRID, landscape(np.full(len(strata), 0.5)))
    same, _ = choose_strata(alike, folds, strata, each_alone(strata), choose(alike, folds, strata))
    assert not same.strata


@pytest.mark.parametrize("fold", range(4))
def test_whether_a_fold_has_settings_for_strata_owes_nothing_to_its_truth(fold: int) -> None:
    tops, folds, strata = mixed()
    shuffled = tops.copy()
    shuffled[folds == fold] = 0.5
    own = []
    for truth in (tops, shuffled):
        search = GridSearch(GRID, landscape(truth))
        kept, _ = choose_strata(search, folds, strata, each_alone(strata), choose(search, folds, strata))
        own.append(kept.own[folds == fold])
    np.testing.assert_array_equal(own[0], own[1])


def test_two_folds_cannot_judge_settings_for_strata_for_each_other() -> None:
    tops, folds, strata = mixed()
    search = GridSearch(GRID, landscape(tops))
    one = choose(search, folds % 2, strata)
    kept, _ = choose_strata(search, folds % 2, strata, each_alone(strata), one)
    np.testing.assert_array_equal(kept.own, one.own)
    assert kept.strata, "the submission may have them"


def test_a_single_fold_cannot_judge_settings_for_strata() -> None:
    tops, folds, strata = mixed()
    search = GridSearch(GRID, landscape(tops))
    alone = np.zeros_like(folds)
    one = choose(search, alone, strata)
    kept, finer = choose_strata(search, alone, strata, each_alone(strata), one)
    assert kept is one
    assert finer.cross_fitted > one.cross_fitted, "in-sample, which is no reason"
    assert tune._compared(one, finer, kept, judged=False) == (
        "a setting for each of 2 strata: not judged with one fold, not kept"
    )


def test_without_a_stratum_large_enough_nothing_is_compared() -> None:
    strata = np.repeat(["a", "b"], LEAST - 1)
    search = GridSearch(GRID, landscape(np.full(len(strata), 0.5)))
    one = choose(search, np.arange(len(strata)) % 3, strata)
    kept, finer = choose_strata(search, np.arange(len(strata)) % 3, strata, each_alone(strata), one)
    assert not finer.strata
    said = tune._compared(one, finer, kept, judged=True)
    assert said == "settings for strata: none, as no stratum has 10 images"


def test_a_users_least_size_is_tried_with_every_setting() -> None:
    grid = instances.grid("watershed_distance")
    tried = tune.settings_to_try(instances.build("watershed_distance", min_size=90))
    among = {tuple(sorted(setting.items())) for setting in tried}
    assert len(among) == len(tried) == len(grid) * 5 // 4, "four sizes, and the own one"
    options = instances.build("watershed_distance").options()
    for setting in grid:
        for size in (setting["min_size"], 90):
            assert tuple(sorted({**options, **setting, "min_size": size}.items())) in among
    assert len(tune.settings_to_try(instances.build("watershed_distance", core=0.4, min_size=40))) == len(grid)
    assert {setting["min_size"] for setting in tune.settings_to_try(instances.build("flow", min_size=7))} >= {5, 7, 40}
    assert len(tune.settings_to_try(instances.build("none", threshold=0.5))) == len(instances.grid("none"))
