"""The leaderboard in the terminal: best first, and what of the differences is noise."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from histofold.evaluation.leaderboard import leaderboard
from histofold.evaluation.oof import find_runs
from histofold.evaluation.repeats import FoldSets, fold_counts
from histofold.evaluation.run import correlations
from histofold.files import write_json
from histofold.tiles.folds import COLUMNS, write


def trained(
    folder: Path,
    run: str,
    scores: list[float],
    fold: int = 0,
    ids: list[str] | None = None,
    metric: str = "dsb",
    **config: object,
) -> None:
    """A finished fold of a run."""
    place = folder / run / f"fold{fold}"
    place.mkdir(parents=True)
    ids = ids or [f"s{fold}_{number}" for number in range(len(scores))]
    table = pd.DataFrame({"sample_id": ids, "group": ids, "stratum": "x", "fold": fold, "score": scores})
    table[metric] = scores
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


def folds_of_today(folder: Path, *folds: list[str], out: tuple[str, ...] = ()) -> FoldSets:
    """A folds.csv with these samples in each fold, and others that are left out."""
    names = [(name, fold) for fold, own in enumerate(folds) for name in own] + [(name, -1) for name in out]
    rows = [(name, "train", 8, 8, name, "x", fold) for name, fold in names]
    folder.mkdir(exist_ok=True)
    write(folder / "folds.csv", pd.DataFrame(rows, columns=COLUMNS))
    return fold_counts(folder)


def line_of(text: str, run: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"  {run} "))


HARD, EASY, LAST = ["h0", "h1"], ["e0", "e1"], ["z0", "z1"]


def test_scores_of_images_that_were_left_out_since_do_not_count(tmp_path: Path) -> None:
    today = folds_of_today(tmp_path / "prepared", EASY, LAST, out=("h0", "h1"))
    oof = tmp_path / "oof"
    trained(oof, "old", [0.5, 0.5, 0.9, 0.9], ids=HARD + EASY)
    trained(oof, "old", [0.9, 0.9], 1, LAST)
    for fold, ids in enumerate((EASY, LAST)):
        trained(oof, "new", [0.8, 0.8], fold, ids, seed=1)
    text = leaderboard(find_runs(oof), oof, "dsb", today)
    assert text.index("  old ") < text.index("  new "), "alike hard for both"
    assert line_of(text, "old").split()[:2] == ["old", "0.9000"]
    assert line_of(text, "old").endswith("  4 samples, folds 0,1, 2 that are no longer in them left out")
    assert repeated(text) == ["new, old                     0.8500 ± 0.0707"]


def test_a_run_on_other_images_is_marked_and_repeats_none(tmp_path: Path) -> None:
    oof = tmp_path / "oof"
    trained(oof, "old", [0.9, 0.9], ids=HARD, prepare={"fold_seed": 0})
    trained(oof, "some", [0.9, 0.9], ids=[HARD[0], EASY[0]], prepare={"fold_seed": 0}, seed=1)
    trained(oof, "first", [0.4, 0.4], ids=EASY, prepare={"fold_seed": 1})
    assert repeated(leaderboard(find_runs(oof), oof, "dsb", {"default": 2})) == [], "nor without a folds.csv"
    trained(oof, "second", [0.6, 0.6], ids=EASY, prepare={"fold_seed": 1}, seed=1)
    text = leaderboard(find_runs(oof), oof, "dsb", folds_of_today(tmp_path / "prepared", EASY, HARD))
    told = "other images: {} of these folds have no score, {} that are no longer in them left out"
    assert line_of(text, "old").split(maxsplit=2)[1:] == ["–", f"0 samples, folds 0, {told.format(2, 2)}"]
    assert line_of(text, "some").endswith(f"PARTIAL: 1 samples, folds 0, {told.format(1, 1)}")
    assert "other images" not in line_of(text, "first") + line_of(text, "second")
    assert text.index("  first ") < text.index("  old "), "without a score it is the last"
    (line,) = repeated(text)
    assert line.startswith("first, second ")


def test_complete_runs_of_two_fold_sets_repeat_each_other_on_the_same_images_only(tmp_path: Path) -> None:
    for fold, (ids, others) in enumerate(((EASY, EASY), (LAST, HARD))):
        trained(tmp_path, "one", [0.5, 0.7], fold, ids)
        trained(tmp_path, "again", [0.7, 0.7], fold, ids, seed=1)
        trained(tmp_path, "two", [0.9, 0.9], fold, others, folds="second")
    (line,) = repeated(board(tmp_path, default=2, second=2))
    assert line.startswith("again, one ")


def test_a_run_that_was_scored_by_another_metric_has_no_place(tmp_path: Path) -> None:
    trained(tmp_path, "mask", [0.9, 0.9], metric="dice")
    trained(tmp_path, "poor", [0.0, 0.1])
    trained(tmp_path, "good", [0.5, 0.7], model={"name": "smp"})
    text = board(tmp_path)
    names = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and "±" not in line]
    assert names == ["good", "poor", "mask"]
    assert line_of(text, "mask").split(maxsplit=2)[1:] == ["–", "not scored by this metric  0 samples, folds 0"]
    assert "±" not in text
    more = [0.1, 0.5, 0.4, 0.9, 0.3, 0.8]
    for name in ("one", "same"):
        trained(tmp_path, name, more, 1)
    trained(tmp_path, "other", more, 1, metric="dice")
    assert correlations(find_runs(tmp_path), "dsb", [1]) == ["errors of one and same correlate by +1.000"]


def ensemble(folder: Path, name: str, score: float, folds: tuple[int, ...], run: str = "a", **more: object) -> None:
    """What `evaluate` keeps of an ensemble, as far as the leaderboard asks for it."""
    whole = {"cross_fitted": score, "interval": None, **more}
    members = [{"run": run, "weight": 1.0}, {"run": "idle_fast", "weight": 0.0}]
    values = {"name": name, "metric": "dsb", "partial": False, "folds": folds, "members": members, "score": whole}
    write_json(folder / "ensembles" / f"{name}.json", values)


def test_what_was_chosen_on_itself_stands_below_what_was_not(tmp_path: Path) -> None:
    trained(tmp_path, "a", [0.5, 0.7])
    for run in ("a_fast", "idle_fast"):
        trained(tmp_path, run, [0.5, 0.7])
        pd.DataFrame({"depth": [1], "score": [0.5]}).to_csv(tmp_path / run / "depths.csv", index=False)
    ensemble(tmp_path, "honest", 0.80, (0, 1))
    ensemble(tmp_path, "worse", 0.79, (0, 1))
    ensemble(tmp_path, "single", 0.83, (0,))
    ensemble(tmp_path, "before", 0.84, (0, 1), "a_fast")
    ensemble(tmp_path, "pruned", 0.82, (0, 1), "gone_fast", pruned=["gone_fast"])
    text = board(tmp_path).partition("ensembles (")[2]
    names = [line.split()[0] for line in text.splitlines()[1:]]
    assert names == ["honest", "worse", "before", "single", "pruned"]
    assert line_of(text, "single").endswith("  chosen on itself: optimistic")
    assert line_of(text, "before").endswith("  depth of a_fast chosen on itself: optimistic"), "of an earlier version"
    assert line_of(text, "pruned").endswith("  depth of gone_fast chosen on itself: optimistic")
    assert "optimistic" not in line_of(text, "honest") + line_of(text, "worse")


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
