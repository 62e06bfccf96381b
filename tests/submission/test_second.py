"""The second level from evaluate to submit: kept where it is better, and then it makes the objects."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from histofold import competitions, compose, instances
from histofold.competitions import images
from histofold.config import CompetitionConfig, SubmitConfig
from histofold.errors import DataError
from histofold.evaluation import run, secondrun
from histofold.inference.bandfile import BandFile
from histofold.inference.ensemble import Ensemble, RunWeight
from histofold.instances.secondlevel import SecondLevel
from histofold.kaggle.export import copy_models
from histofold.report.predictions import Job, View, look
from histofold.submission.own import labels_of
from histofold.submission.place import Submission
from histofold.workspace import Workspace

QUICK = ("runs=[run]", "evaluate.tune=false")


@pytest.fixture(scope="module")
def world(draw: Callable[..., Any]) -> Any:
    return draw(6, seed=3)


def record(world: Any) -> Ensemble:
    return Ensemble.read(world.oof / "ensembles" / "one.json")


def test_off_is_the_default_and_unknown_values_are_refused(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run("evaluate", *QUICK) == 0
    assert "second level" not in capsys.readouterr().out
    assert record(world).second is None
    assert world.run("evaluate", *QUICK, "evaluate.second_level=perhaps") == 2
    assert world.run("evaluate", *QUICK, "folds=[0]", "evaluate.second_level=on") == 2
    assert "only fold 0" in capsys.readouterr().err


def test_auto_keeps_it_where_it_is_better_and_says_by_how_much(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run("evaluate", *QUICK) == 0
    before = record(world)
    assert world.run("evaluate", *QUICK, "evaluate.second_level=auto") == 0
    text = capsys.readouterr().out
    said = re.search(r"second level: cross-fitted (\S+), (\S+) against the decoder alone, (.*)", text)
    assert said is not None
    table = pd.read_csv(world.oof / "ensembles" / "second" / "one.csv")
    gain = float(table["second"].mean() - table["first"].mean())
    assert table["second"].mean() == pytest.approx(float(said[1]), abs=1e-4)
    assert gain == pytest.approx(float(said[2]), abs=1e-4)
    assert table["first"].mean() == pytest.approx(before.score["cross_fitted"])
    after = record(world)
    assert ("in its place a second level" in text) == (gain > 0)
    assert said[3] == ("kept" if gain > 0 else "not kept")
    assert "two folds cannot choose it for each other, so the score is the decoder's alone" in text
    assert (after.second is not None) == (gain > 0)
    assert not table["given"].any()
    assert after.score["cross_fitted"] == pytest.approx(before.score["cross_fitted"])


def test_the_published_score_is_of_what_each_fold_leaves_to_the_others(
    world: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    true, given = secondrun.second_level, np.arange(12) % 3 == 0
    # As three folds would choose: some get the second level, whatever the submission takes.
    for gain in (-0.25, 0.25):
        made = {"gain": gain, "given": given, "judged": True}
        monkeypatch.setattr(secondrun, "second_level", lambda *asked, made=made: replace(true(*asked), **made))
        assert world.run("evaluate", *QUICK, "evaluate.second_level=auto") == 0
        table = pd.read_csv(world.oof / "ensembles" / "second" / "one.csv")
        mixed = np.where(given, table["second"], table["first"])
        written = pd.read_csv(world.oof / "ensembles" / "one.csv")
        assert table["given"].tolist() == given.tolist()
        assert written["score"].tolist() == pytest.approx(mixed.tolist())
        assert written["sample_id"].tolist() == table["sample_id"].tolist()
        assert (record(world).second is not None) == (gain > 0)
        assert record(world).score["cross_fitted"] == pytest.approx(mixed.mean())
        change = mixed.mean() - table["first"].mean()
        assert f"{change:+.4f} where the other folds want it, which is the score" in capsys.readouterr().out


def test_with_three_folds_the_choice_is_asked_of_the_others(draw: Callable[..., Any]) -> None:
    three = draw(6, seed=4)
    path = three.root / "prepared" / "custom" / "folds.csv"
    table = pd.read_csv(path, dtype={"sample_id": str})
    moved = table.index[table["split"] == "train"][::3]
    for sample_id, fold in zip(table["sample_id"][moved], table["fold"][moved], strict=True):
        old, new = (three.oof / "run" / f"fold{number}" / "predictions" for number in (fold, 2))
        new.mkdir(parents=True, exist_ok=True)
        (old / f"{sample_id}.tif").rename(new / f"{sample_id}.tif")
    table.loc[moved, "fold"] = 2
    table.to_csv(path, index=False)
    for name in ("config.yaml", "model.ckpt"):
        shutil.copyfile(three.oof / "run" / "fold0" / name, three.oof / "run" / "fold2" / name)
    for fold in range(3):
        rows = table[(table["split"] == "train") & (table["fold"] == fold)].assign(score=0.5, aji=0.5)
        rows.to_csv(three.oof / "run" / f"fold{fold}" / "scores.csv", index=False)
    assert three.run("evaluate", "runs=[run]", "evaluate.second_level=auto", "instances=threshold") == 0
    found = pd.read_csv(three.oof / "ensembles" / "second" / "one.csv")
    assert found.groupby("fold")["given"].nunique().eq(1).all(), "a fold has it or has not"
    mixed = np.where(found["given"], found["second"], found["first"])
    assert pd.read_csv(three.oof / "ensembles" / "one.csv")["score"].tolist() == pytest.approx(mixed.tolist())


def test_auto_leaves_it_where_it_is_worse_and_on_takes_it(
    world: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = secondrun.second_level
    monkeypatch.setattr(secondrun, "second_level", lambda *given: replace(true(*given), gain=-0.25))
    assert world.run("evaluate", *QUICK) == 0
    before = record(world)
    assert world.run("evaluate", *QUICK, "evaluate.second_level=auto") == 0
    assert "-0.2500 against the decoder alone, not kept" in capsys.readouterr().out
    assert record(world).second is None
    assert record(world).score == before.score
    assert world.run("evaluate", *QUICK, "evaluate.second_level=on") == 0
    assert "-0.2500 against the decoder alone, kept" in capsys.readouterr().out
    assert record(world).second is not None


def test_submit_report_and_own_images_take_its_objects(world: Any, tmp_path: Path) -> None:
    assert world.run("evaluate", *QUICK, "evaluate.second_level=on") == 0
    assert world.run("submit") == 0
    ensemble = record(world)
    path = ensemble.second_path(world.root / "oof")
    assert path is not None
    second = SecondLevel.read(path)
    assert isinstance(json.loads(path.read_text()), dict), "numbers and names, nothing that runs"
    plain, differ = instances.resolve(ensemble.instances or {}, ensemble.bands), 0
    competition = competitions.open(
        CompetitionConfig("custom", "folders", None, {"folder": str(world.root / "input" / "custom")}), tmp_path
    )
    for sample_id in ("dark06", "dark07", "light06", "light07"):
        bands = world.submission / "predictions" / f"{sample_id}.tif"
        image = world.root / "input" / "custom" / "images" / f"{sample_id}.png"
        with BandFile(bands) as file:
            expected = second(images.rgb(image), file.read())
            differ += not np.array_equal(expected, plain(file.read()))
        assert np.array_equal(images.integers(world.submission / "labels" / f"{sample_id}.tif"), expected)
        assert np.array_equal(labels_of(ensemble, bands, image, path, SubmitConfig(False, None, 0, 0)), expected)
        view = View(competition, ensemble.bands, 0.5, ensemble.instances, second=path)
        seen = look(view, Job(sample_id, (bands,), (1.0,), 0, measure=True)).predicted
        assert seen is not None
        assert seen["share"] == pytest.approx(100 * float((expected > 0).mean()))
    assert differ > 0
    assert world.run("report") == 0
    page = (world.submission / "report.html").read_text(encoding="utf-8")
    assert "Second level" in page
    assert "against the decoder alone" in page
    copy_models(replace(ensemble, checkpoints=(), members=(RunWeight("run", 0.0),)), world.root / "oof", tmp_path)
    assert ensemble.second_path(tmp_path) is not None, "and the notebook has it"


def test_a_changed_or_damaged_file_is_refused(world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run("evaluate", *QUICK, "evaluate.second_level=on") == 0
    path = record(world).second_path(world.root / "oof")
    assert path is not None
    whole = path.read_text()
    path.write_text(whole + " ")
    capsys.readouterr()
    assert world.run("submit") == 1
    assert "not the second level that one was scored with" in capsys.readouterr().err
    for damage in ("{}", whole.replace('"level"', '"hight"'), whole.replace('"roots": [0', '"roots": [-9')):
        (tmp_path / "one.json").write_text(damage)
        with pytest.raises(DataError, match="run evaluate again"):
            SecondLevel.read(tmp_path / "one.json")


def test_weights_that_were_searched_are_refused(world: Any) -> None:
    assert world.run("evaluate", "runs=[run,run]", "evaluate.search=greedy", "evaluate.second_level=on") == 2


def test_an_ensemble_that_was_evaluated_with_the_spread_predicts_it(world: Any) -> None:
    assert world.run("evaluate", *QUICK) == 0
    places = [f"paths.{name}={world.root / name}" for name in ("input", "prepared", "oof", "submissions")]
    config = compose.load(compose.compose(["competition=folders", "name=one", *places]))
    submission = Submission.of(Workspace(config))
    assert not submission.predictor().spread
    wider = replace(submission, ensemble=replace(submission.ensemble, bands=(*submission.ensemble.bands, "spread")))
    assert wider.predictor().spread


def test_an_evaluation_that_fails_leaves_the_old_ensemble_its_second_level(
    world: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.run("evaluate", *QUICK, "evaluate.second_level=on") == 0
    before, written = record(world), world.oof / "ensembles" / "second" / "one.json"
    old = written.read_bytes()

    def broken(*_: Any) -> None:
        raise DataError("a checkpoint is gone")

    changed = ("evaluate.second_level=on", "instances=watershed", "instances.min_size=9")
    with monkeypatch.context() as patch:
        patch.setattr(run, "describe", broken)
        assert world.run("evaluate", *QUICK, *changed) == 1
    assert "a checkpoint is gone" in capsys.readouterr().err
    assert record(world) == before
    assert before.second_path(world.root / "oof") == written
    assert world.run("evaluate", *QUICK, *changed) == 0
    assert written.read_bytes() != old, "it would have been another one"
    assert record(world).second_path(world.root / "oof") == written


def test_runs_of_different_sizes_are_refused_before_the_work(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = world.oof / "run" / "fold1" / "config.yaml"
    text = path.read_text()
    worked: list[object] = []
    monkeypatch.setattr(run, "mix", lambda *given: worked.append(given))
    path.write_text(f"{text}predict: {{size: 12}}\n")
    try:
        assert world.run("evaluate", *QUICK) == 1
    finally:
        path.write_text(text)
    assert not worked
