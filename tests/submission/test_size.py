"""The size that nuclei were magnified to out of fold is that of the test set, whatever the settings say by then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from histofold import compose
from histofold.files import read_json, write_json, write_text
from histofold.inference.ensemble import Ensemble
from histofold.submission.place import Submission
from histofold.workspace import Workspace

QUICK = ("runs=[run]", "evaluate.tune=false")


@pytest.fixture(scope="module")
def world(draw: Callable[..., Any]) -> Any:
    return draw(4, seed=5)


def say_size(world: Any, fold: int, size: float) -> None:
    text = f"run: run\nfolds: default\nmodel: {{name: unet}}\npredict: {{size: {size}}}\n"
    write_text(world.oof / "run" / f"fold{fold}" / "config.yaml", text)


def test_an_ensemble_keeps_the_size_of_its_predictions(world: Any) -> None:
    place = world.oof / "ensembles" / "one.json"
    assert world.run("evaluate", *QUICK) == 0
    assert Ensemble.read(place).size == 0, "runs from before there was a size"
    for fold in (0, 1):
        say_size(world, fold, 36)
    assert world.run("evaluate", *QUICK) == 0
    assert Ensemble.read(place).size == 36
    places = [f"paths.{name}={world.root / name}" for name in ("input", "prepared", "oof", "submissions")]
    config = compose.load(compose.compose(["competition=folders", "name=one", "predict.size=0", *places]))
    assert Submission.of(Workspace(config)).predictor().size == 36
    values = read_json(place)
    del values["size"]
    write_json(place, values)
    assert Ensemble.read(place).size == 0, "an ensemble from before there was a size"


def test_predictions_of_several_sizes_are_not_mixed(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    say_size(world, 0, 36)
    say_size(world, 1, 0)
    assert world.run("evaluate", *QUICK) == 1
    text = capsys.readouterr().err
    assert "fold1: its OOF predictions were made with predict.size=0" in text
    assert "fold0 with 36" in text
    assert "delete predictions/ and scores.csv" in text
