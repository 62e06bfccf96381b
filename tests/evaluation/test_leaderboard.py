"""The leaderboard in the terminal: best first, and what of the differences is noise."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from histofold.evaluation.leaderboard import leaderboard
from histofold.evaluation.oof import find_runs
from histofold.evaluation.run import correlations


def trained(folder: Path, run: str, scores: list[float], fold: int = 0, **config: object) -> None:
    """A finished fold of a run."""
    place = folder / run / f"fold{fold}"
    place.mkdir(parents=True)
    ids = [f"s{fold}_{number}" for number in range(len(scores))]
    table = pd.DataFrame({"sample_id": ids, "group": ids, "stratum": "x", "fold": fold, "score": scores})
    table.to_csv(place / "scores.csv", index=False)
    OmegaConf.save({"model": {"name": "unet"}, "train": {"epochs": 3}, "seed": 0, **config}, place / "config.yaml")


def board(folder: Path, metric: str = "dsb", **counts: int) -> str:
    return leaderboard(find_runs(folder), folder, metric, counts)


def test_repeats_are_told_with_mean_and_spread(tmp_path: Path) -> None:
    trained(tmp_path, "first", [0.5, 0.7])
    trained(tmp_path, "again", [0.7, 0.7], seed=1)
    trained(tmp_path, "folds", [0.8, 0.8], folds="second")
    trained(tmp_path, "longer", [0.9, 0.9], train={"epochs": 9})
    text = board(tmp_path)
    assert text.index("longer") < text.index("first")
    # .7, .8 and .6: a mean of .7, a standard deviation of .1.
    line = next(line for line in text.splitlines() if "±" in line and "standard" not in line)
    assert line.split() == ["again,", "first,", "folds", "0.7000", "±", "0.1000"]


def test_a_fold_sets_seed_and_what_changes_nothing_still_make_a_repeat(tmp_path: Path) -> None:
    trained(tmp_path, "first", [0.5, 0.7], prepare={"scale": 4, "fold_seed": 0, "workers": 0})
    trained(tmp_path, "folds", [0.8, 0.8], prepare={"scale": 4, "fold_seed": 1, "workers": 9}, folds="second")
    trained(tmp_path, "coarse", [0.7, 0.9], prepare={"scale": 8, "fold_seed": 0, "workers": 0})
    (line,) = [line for line in board(tmp_path).splitlines() if line.endswith("0.1414")]
    assert line.split() == ["first,", "folds", "0.7000", "±", "0.1414"]


def test_a_run_from_before_an_option_existed_is_repeated_by_one_with_its_default(tmp_path: Path) -> None:
    trained(tmp_path, "first", [0.5, 0.7], train={"epochs": 3})
    trained(tmp_path, "again", [0.7, 0.7], train={"epochs": 3, "start": None, "even_strata": 0}, seed=1)
    trained(tmp_path, "begun", [0.7, 0.7], train={"epochs": 3, "start": "first", "even_strata": 0}, seed=1)
    (line,) = [line for line in board(tmp_path).splitlines() if line.endswith("0.0707")]
    assert line.split()[:2] == ["again,", "first"]


def test_without_repeats_nothing_is_said_of_them(tmp_path: Path) -> None:
    trained(tmp_path, "first", [0.5, 0.7])
    trained(tmp_path, "longer", [0.9, 0.9], train={"epochs": 9})
    assert "±" not in board(tmp_path)


def repeated(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if "±" in line and "standard" not in line]


def test_repeats_are_compared_on_the_folds_that_they_share(tmp_path: Path) -> None:
    for fold, scores in enumerate(([0.9, 0.9], [0.3, 0.3])):
        trained(tmp_path, "whole", scores, fold)
    trained(tmp_path, "easy", [0.8, 0.8], seed=1)
    (line,) = repeated(board(tmp_path, default=2))
    # .9 and .8 on fold 0; the mean of both folds of the whole run, .6, is of other samples.
    assert line.split(maxsplit=2)[2] == "0.8500 ± 0.0707  PARTIAL: folds 0 of each"
    assert line.startswith("easy, whole")


def test_a_repeat_without_a_common_fold_is_left_out(tmp_path: Path) -> None:
    for fold in (0, 1):
        trained(tmp_path, "one", [0.5, 0.7], fold)
        trained(tmp_path, "two", [0.7, 0.7], fold, seed=1)
    trained(tmp_path, "other", [0.1, 0.1], 2, seed=2)
    (line,) = repeated(board(tmp_path, default=3))
    assert line.startswith("one, two ")
    assert line.endswith("0.6500 ± 0.0707  PARTIAL: folds 0,1 of each")


def test_runs_of_two_fold_sets_share_nothing_but_complete_cvs(tmp_path: Path) -> None:
    for fold in (0, 1):
        trained(tmp_path, "one", [0.5, 0.7], fold)
    trained(tmp_path, "two", [0.9, 0.9], 0, folds="second")
    assert repeated(board(tmp_path, default=2, second=2)) == []
    trained(tmp_path, "two", [0.5, 0.5], 1, folds="second")
    (line,) = repeated(board(tmp_path, default=2, second=2))
    assert line.endswith("0.6500 ± 0.0707")


def test_partial_runs_are_marked(tmp_path: Path) -> None:
    trained(tmp_path, "first", [0.5, 0.7])
    assert "PARTIAL: 2 samples, folds 0" in board(tmp_path, default=2)
    assert "PARTIAL" not in board(tmp_path, default=1)
    trained(tmp_path, "other", [0.5, 0.7], 1, model="x")
    trained(tmp_path, "other", [0.5, 0.7], 2, model="x")
    text = board(tmp_path)
    assert "PARTIAL: 2 samples, folds 0" in text, "without folds.csv the fullest run tells how many there are"
    assert text.count("PARTIAL") == 1


def test_an_interval_of_one_patient_is_none(tmp_path: Path) -> None:
    trained(tmp_path, "first", [0.5, 0.7])
    assert "[too few groups for an interval]" in board(tmp_path)


def test_correlation_of_errors(tmp_path: Path) -> None:
    scores = [0.1, 0.5, 0.4, 0.9, 0.3, 0.8]
    trained(tmp_path, "one", scores)
    trained(tmp_path, "same", [value / 2 for value in scores])
    trained(tmp_path, "opposite", [1 - value for value in scores])
    trained(tmp_path, "steady", [0.5] * 6)
    said = correlations(find_runs(tmp_path), "dsb", [0])
    assert said == [
        "errors of one and opposite correlate by -1.000",
        "errors of one and same correlate by +1.000",
        "errors of opposite and same correlate by -1.000",
    ]
    assert correlations(find_runs(tmp_path)[:1], "dsb", [0]) == []


@pytest.mark.parametrize("count", [2, 4])
def test_few_samples_say_nothing_of_correlation(tmp_path: Path, count: int) -> None:
    trained(tmp_path, "one", [0.1, 0.5, 0.4, 0.9][:count])
    trained(tmp_path, "same", [0.2, 0.6, 0.5, 0.8][:count])
    assert correlations(find_runs(tmp_path), "dsb", [0]) == []
