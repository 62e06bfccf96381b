"""The report's numbers against plain recomputation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from histofold.evaluation.repeats import FoldSets
from histofold.report.data import Fold, Run
from histofold.report.sections import board, measures, repeats
from histofold.report.stats import (
    correlation,
    cv_table,
    dice_by_threshold,
    estimate,
    leaderboard,
    other_metrics,
    reliability,
)


def table(scores: list[float], fold: int = 0, stratum: str = "s", groups: list[str] | None = None) -> pd.DataFrame:
    names = [f"f{fold}_{stratum}_{i}" for i in range(len(scores))]
    columns = {"sample_id": names, "fold": fold, "stratum": stratum, "group": groups or names, "score": scores}
    return pd.DataFrame(columns)


def run(name: str, scores: list[float], seed: int = 0, model: str = "unet") -> Run:
    config = {"model": {"name": model, "encoder": "resnet18"}, "target": {"name": "border"}, "seed": seed}
    from pathlib import Path

    return Run(name, [Fold(0, Path(), None, table(scores))], config)


def test_estimate_has_an_interval_only_with_enough_groups() -> None:
    value = estimate(table([0.2, 0.4, 0.6, 0.8]))
    assert value.mean == pytest.approx(0.5)
    assert value.count == 4
    assert value.low is not None
    assert value.high is not None
    assert value.low < 0.5 < value.high
    assert estimate(table([0.2, 0.8], groups=["a", "b"])).low is None
    assert estimate(table([0.2, 0.4, 0.6, 0.8], groups=["a", "a", "b", "b"])).low is None


def test_groups_widen_the_interval() -> None:
    scores = [0.1] * 10 + [0.5] * 10 + [0.9] * 10
    single = estimate(table(scores))
    grouped = estimate(table(scores, groups=["a"] * 10 + ["b"] * 10 + ["c"] * 10))
    assert single.low is not None
    assert single.high is not None
    assert grouped.low is not None
    assert grouped.high is not None
    assert grouped.high - grouped.low > 1.5 * (single.high - single.low)


def test_samples_without_a_group_are_their_own() -> None:
    assert estimate(table([0.1, 0.5, 0.9], groups=["", "", ""])).low is not None


def test_cv_table_has_margins() -> None:
    scores = pd.concat([table([0.2, 0.4], 0, "a"), table([0.6], 1, "a"), table([1.0], 1, "b")])
    found = cv_table(scores)
    assert found.folds == [0, 1]
    assert [name for name, _, _ in found.rows] == ["a", "b", "all"]
    name, cells, _whole = found.rows[0]
    assert (name, cells[0].mean, cells[1].count) == ("a", pytest.approx(0.3), 1)
    assert found.rows[1][1][0].count == 0
    assert found.rows[2][2].mean == pytest.approx(0.55)


def test_cv_table_of_one_stratum_says_all_once() -> None:
    assert [name for name, _, _ in cv_table(table([0.2, 0.4])).rows] == ["all"]


def test_leaderboard_is_sorted_and_describes() -> None:
    lines = leaderboard([run("worse", [0.1, 0.2, 0.3]), run("better", [0.7, 0.8, 0.9])])
    assert [line.name for line in lines] == ["better", "worse"]
    assert lines[0].text == "unet · resnet18 → border"


def test_repeats_differ_in_seed_only() -> None:
    found = repeats([run("a", [0.4, 0.4]), run("b", [0.6, 0.6], seed=1), run("c", [0.9, 0.9], model="fullnet")])
    assert len(found) == 1
    assert found[0]["names"] == ["a", "b"]
    assert found[0]["mean"] == pytest.approx(0.5)
    assert found[0]["spread"] == pytest.approx(np.std([0.4, 0.6], ddof=1))


def test_repeats_are_compared_on_the_folds_that_they_share() -> None:
    whole, part = run("a", [0.4, 0.4]), run("b", [0.6, 0.6], seed=1)
    whole.folds.append(Fold(1, whole.folds[0].folder, None, table([0.9, 0.9], 1)))
    (found,) = repeats([whole, part])
    assert found["mean"] == pytest.approx(0.5), "the mean of the whole run, .65, is of other samples"
    assert found["folds"] == "0"
    assert [line.partial for line in leaderboard([whole, part])] == [False, True]


def test_runs_are_ranked_by_the_metric_of_the_page() -> None:
    runs = [run("a", [0.2, 0.2]), run("b", [0.4, 0.4])]
    for one, dice in zip(runs, (0.9, 0.5), strict=True):
        assert one.folds[0].scores is not None
        one.folds[0].scores["dice"] = dice
        one.folds[0].scores["dsb"] = one.folds[0].scores["score"]
    assert [line.name for line in leaderboard(runs, "dsb")] == ["b", "a"]
    assert [(line.name, line.value.mean) for line in leaderboard(runs, "dice")] == [("a", 0.9), ("b", 0.5)]


def test_a_run_that_was_scored_by_another_metric_is_last() -> None:
    runs = [run("mask", [0.9, 0.9]), run("objects", [0.2, 0.4])]
    assert runs[1].folds[0].scores is not None
    runs[1].folds[0].scores["dsb"] = 0.3
    lines = leaderboard(runs, "dsb")
    assert [(line.name, line.value.count) for line in lines] == [("objects", 2), ("mask", 0)]
    assert "was not scored by dsb" in (board(runs, metric="dsb") or {})["text"]


def test_images_that_a_fold_holds_no_more_do_not_count() -> None:
    runs = [run("moved", [0.9, 0.9]), run("more", [0.1, 0.5, 0.5], seed=1), run("now", [0.4, 0.4], seed=2)]
    for one, ids in zip(runs, (["x", "y"], ["x", "a", "b"], ["a", "b"]), strict=True):
        assert one.folds[0].scores is not None
        one.folds[0].scores["sample_id"] = ids
    today = FoldSets({"default": pd.DataFrame({"sample_id": ["a", "b", "x"], "fold": [0, 0, 1]})})
    lines = leaderboard(runs, "", today)
    assert [line.name for line in lines] == ["more", "now", "moved"]
    assert [line.value.mean for line in lines[:2]] == [0.5, 0.4]
    assert [(line.lacking, line.gone) for line in lines] == [(0, 1), (0, 0), (2, 2)]
    found = board(runs, counts=today) or {}
    assert "of which so many have no score: moved (2)." in found["text"]
    assert "not scored by" not in found["text"]
    assert [one["names"] for one in found["repeats"]] == [["more", "now"]]


def test_reliability_of_calibrated_levels_is_near_the_diagonal() -> None:
    random = np.random.default_rng(0)
    levels = random.integers(0, 256, 400_000)
    truth = random.random(len(levels)) < levels / 255
    histogram = np.stack([np.bincount(levels[~truth], minlength=256), np.bincount(levels[truth], minlength=256)])
    found = reliability(histogram)
    assert found is not None
    assert found.error < 0.01
    assert sum(found.pixels) == len(levels)
    np.testing.assert_allclose(found.predicted, found.observed, atol=0.02)


def test_reliability_sees_too_much_confidence() -> None:
    histogram = np.zeros((2, 256), np.int64)
    histogram[0, 255], histogram[1, 255] = 50, 50
    found = reliability(histogram)
    assert found is not None
    assert found.observed == [0.5]
    assert found.error == pytest.approx(0.5)
    assert reliability(np.zeros((2, 256), np.int64)) is None


def test_dice_by_threshold_equals_pixels() -> None:
    random = np.random.default_rng(1)
    levels, truth = random.integers(0, 256, 5000), random.random(5000) < 0.3
    histogram = np.stack([np.bincount(levels[~truth], minlength=256), np.bincount(levels[truth], minlength=256)])
    for threshold, dice in dice_by_threshold(histogram)[::50]:
        predicted = levels >= round(threshold * 255)
        assert dice == pytest.approx(2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()))


def test_correlation_uses_common_samples() -> None:
    found = correlation([run("a", [0.1, 0.2, 0.3, 0.4, 0.5]), run("b", [0.5, 0.4, 0.3, 0.2, 0.1])])
    assert found is not None
    assert found[0] == ["a", "b"]
    assert found[1][0, 1] == pytest.approx(-1)
    assert correlation([run("a", [0.1, 0.2, 0.3, 0.4, 0.5])]) is None


def test_every_metric_is_shown_by_stratum_and_objects_are_added_up() -> None:
    scores = pd.concat([table([0.2, 0.4], 0, "a"), table([0.6], 1, "b")])
    scores = scores.assign(ap50=[0.5, 0.7, 0.9], dice=[0.1, 0.2, 0.3])
    scores = scores.assign(object_hausdorff=[3.0, 5.0, 7.0], hd95=[1.0, 2.0, 3.0], found=[4, 5, 6])
    scores = scores.assign(pixels_both=[10, 0, 5], pixels_truth=[20, 0, 5], pixels_predicted=[10, 10, 5])
    found = measures(scores)
    assert found is not None
    pooled = ["dice, pooled", "iou, pooled"]
    assert found["titles"] == ["ap50", "dice", *pooled, "object_hausdorff, px", "hd95, px", "found"]
    assert [row["name"] for row in found["rows"]] == ["a", "b", "all"]
    cells = ["0.600", "0.150", "0.500", "0.333", "4.0", "1.5", "9"]
    assert found["rows"][0] == {"name": "a", "count": 2, "cells": cells}
    assert found["rows"][2]["cells"][-1] == "15"
    assert "pixels_both" not in other_metrics(scores)
    marked = measures(scores, merged=True)
    assert marked is not None
    assert marked["titles"] == ["ap50*", "dice", *pooled, "object_hausdorff*, px", "hd95, px", "found*"]
    assert measures(table([0.2, 0.4])) is None
