"""`evaluate.second_level`: what it is worth is said and kept, and the ensemble stays what it is without it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from histofold.inference.ensemble import Ensemble


def test_evaluate_says_by_how_much_it_is_better(draw: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    world = draw(4, seed=3)
    assert world.run("evaluate", "runs=[run]", "evaluate.tune=false") == 0
    assert "second level" not in capsys.readouterr().out
    before = Ensemble.read(world.oof / "ensembles" / "one.json")
    assert world.run("evaluate", "runs=[run]", "evaluate.tune=false", "evaluate.second_level=true") == 0
    said = re.search(r"second level: cross-fitted (\S+), (\S+) against", capsys.readouterr().out)
    assert said is not None
    table = pd.read_csv(world.oof / "ensembles" / "one-second.csv")
    assert len(table) == 8
    assert table["second"].mean() == pytest.approx(float(said[1]), abs=1e-4)
    assert table["second"].mean() - table["first"].mean() == pytest.approx(float(said[2]), abs=1e-4)
    after = Ensemble.read(world.oof / "ensembles" / "one.json")
    assert (after.score["cross_fitted"], after.instances) == (before.score["cross_fitted"], before.instances)
    assert table["first"].mean() == pytest.approx(after.score["cross_fitted"])


def test_one_fold_is_too_few(draw: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    world = draw(2, seed=4)
    assert world.run("evaluate", "runs=[run]", "folds=[0]", "evaluate.second_level=true", "evaluate.tune=false") == 2
    assert "only fold 0" in capsys.readouterr().err
