"""A second fold set: an option of prepare and train, a repeat on the leaderboard, never mixed with the first."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from histofold.inference.ensemble import Ensemble
from histofold.report.data import collect
from histofold.report.sections import repeats
from histofold.tiles import folds

Said = Callable[[], str]


@pytest.fixture(scope="module")
def world(kidney: Any) -> Iterator[Any]:
    """The trained slides with one run more, on a second fold set; the shared world is left as it was."""
    assert kidney.run("prepare", "folds=second", "prepare.fold_seed=5") == 0
    for fold in (0, 1):
        assert kidney.run("train", "run=elsewhere", "folds=second", f"fold={fold}", "seed=0", "predict.tile=128") == 0
    yield kidney
    shutil.rmtree(kidney.oof / "elsewhere")
    (kidney.prepared / "folds-second.csv").unlink()
    for path in (kidney.oof / "ensembles").rglob("alone.*"):
        path.unlink()


def mean_of(world: Any, run: str) -> float:
    places = [world.oof / run / f"fold{fold}" / "scores.csv" for fold in (0, 1)]
    return float(pd.concat(map(pd.read_csv, places))["score"].mean())


def test_it_is_another_set_of_the_same_samples(world: Any) -> None:
    first, second = (folds.read(world.prepared / name) for name in ("folds.csv", "folds-second.csv"))
    assert first["sample_id"].tolist() == second["sample_id"].tolist()
    assert folds.parts(first) != folds.parts(second)
    for row in second[second["split"] == "train"].itertuples():
        assert (world.oof / "elsewhere" / f"fold{row.fold}" / "predictions" / f"{row.sample_id}.tif").is_file()


def test_the_leaderboard_shows_repeats_with_mean_and_spread(world: Any, said: Said) -> None:
    assert world.run("evaluate") == 0
    line = next(line for line in said().splitlines() if "±" in line and line.startswith("  "))
    runs = ("elsewhere", "first", "second")
    means = [mean_of(world, run) for run in runs]
    assert np.std(means) > 0, "another seed or other folds are other numbers"
    assert line.split() == [
        "elsewhere,", "first,", "second", f"{np.mean(means):.4f}", "±", f"{np.std(means, ddof=1):.4f}",
    ]  # fmt: skip
    (row,) = repeats(collect(world.competition, world.root / "oof", world.root / "submissions").runs)
    assert (row["names"], row["mean"]) == (list(runs), pytest.approx(np.mean(means)))


def test_it_is_evaluated_on_its_own_folds(world: Any, said: Said) -> None:
    assert world.run("evaluate", "runs=[elsewhere]", "folds=all", "name=alone") == 0
    table = pd.read_csv(world.oof / "ensembles" / "alone.csv", dtype={"sample_id": str}).set_index("sample_id")
    second = folds.read(world.prepared / "folds-second.csv").set_index("sample_id")
    assert table["fold"].to_dict() == second.loc[second["split"] == "train", "fold"].to_dict()
    assert not Ensemble.read(world.oof / "ensembles" / "alone.json").partial


def test_runs_of_different_sets_are_no_ensemble(world: Any, said: Said) -> None:
    said()
    assert world.run("evaluate", "runs=[first,elsewhere]", "folds=all", "name=mixed_sets") == 1
    text = said().strip()
    assert len(text.splitlines()) == 1
    assert "different fold sets ({'first': 'default', 'elsewhere': 'second'}); evaluate them apart" in text
    assert not (world.oof / "ensembles" / "mixed_sets.json").exists()


def test_a_run_is_not_continued_on_another_set(world: Any, said: Said) -> None:
    assert world.run("train", "run=first", "folds=second", "fold=0", "seed=0") == 2
    assert "folds=default" in said()


def test_a_set_that_says_nothing_new_and_one_that_was_not_made_are_told(world: Any, said: Said) -> None:
    path = world.prepared / "folds-copy.csv"
    assert world.run("prepare", "folds=copy") == 0
    path.unlink()
    assert "held out together as in folds.csv" in said()
    assert world.run("train", "run=nowhere", "folds=third") == 1
    text = said()
    assert "folds-third.csv: no such file; run `./run.sh prepare competition=demo_kidney " in text
    assert "folds=third prepare.fold_seed=1` first" in text


@pytest.mark.parametrize("wrong", ["1", "../out", "a/b"])
def test_what_is_no_fold_set_is_refused(world: Any, said: Said, wrong: str) -> None:
    assert world.run("train", "run=nowhere", f"folds={wrong}") == 2
    assert f"folds={wrong}: expected all, a list such as [0,1] or the name of a fold set" in said()
    assert not (world.oof / "nowhere").exists()
