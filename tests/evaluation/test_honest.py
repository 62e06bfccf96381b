"""`evaluate` on drawn predictions: what one CV may be made of, which metric it is of, and what its score rests on."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from histofold import cli, competitions
from histofold.compose import compose, load
from histofold.config import CompetitionConfig, Config
from histofold.errors import ConfigError
from histofold.evaluation.oof import find_run
from histofold.evaluation.run import correlations
from histofold.files import read_json, sha256, write_json
from histofold.inference.bandfile import BandFileWriter, quantise
from histofold.inference.ensemble import Ensemble
from histofold.inference.predict import fingerprint_of, tag
from histofold.report import sections
from histofold.report.data import collect
from histofold.submission.encode import EncodeTask, encode
from histofold.submission.run import title
from histofold.targets.base import Band
from histofold.training.oof import score_fold, settings_of
from histofold.training.run import claim
from histofold.workspace import Workspace

SIDE, COUNT, GROUPS, FOLDS = 40, 12, 6, 3


class Drawn:
    """A competition of twelve drawn images in three folds, and the verbs on it."""

    def __init__(self, root: Path) -> None:
        self.root, self.oof = root, root / "oof" / "custom"
        places = [f"paths.{name}={root / name}" for name in ("input", "prepared", "oof", "submissions")]
        quiet = ["prepare.workers=1", "evaluate.workers=1", "evaluate.bootstrap=20", "evaluate.tune=false"]
        self.base = ["competition=folders", f"prepare.n_folds={FOLDS}", "instances=threshold", *quiet, *places]

    def evaluate(self, *more: str) -> int:
        return cli.main("evaluate", [*self.base, *more])

    def config(self, *more: str) -> Config:
        return load(compose([*self.base, *more]))

    def record(self, name: str) -> dict[str, Any]:
        return read_json(self.oof / "ensembles" / f"{name}.json")

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.oof / "ensembles" / f"{name}.csv")

    def fold(
        self,
        run: str,
        fold: int,
        seed: int = 0,
        bands: tuple[str, ...] = ("foreground",),
        *more: str,
        tagged: bool = True,
    ) -> None:
        """A finished fold whose predictions are its truth, blurred and noisy; untagged ones are of earlier versions."""
        config = self.config(f"run={run}", f"fold={fold}", *more)
        workspace, random = Workspace(config), np.random.default_rng((seed, fold))
        table = workspace.folds("default")
        held_out, place = table[table["fold"] == fold], self.oof / run / f"fold{fold}"
        write_json(place / "model.ckpt", {})
        made = tag(fingerprint_of([sha256(place / "model.ckpt")], [1.0], settings_of(config)), "") if tagged else ""
        for sample_id in held_out["sample_id"]:
            truth = (workspace.competition.labels(sample_id) > 0).astype(np.float32)  # type: ignore[operator]
            soft = cv2.GaussianBlur(truth, (0, 0), 2) + random.normal(0, 0.1, truth.shape)
            codes = np.stack([quantise(np.clip(soft, 0, 1).astype(np.float32), Band(name)) for name in bands])
            path = place / "predictions" / f"{sample_id}.tif"
            with BandFileWriter(path, [*map(Band, bands)], SIDE, SIDE, fingerprint=made) as file:
                file.write_rows(0, codes)
        OmegaConf.save(OmegaConf.structured(config), place / "config.yaml")
        score_fold(workspace, held_out, place / "predictions", 1).to_csv(place / "scores.csv", index=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """Runs `a` and `b`, complete."""
    drawn = Drawn(tmp_path_factory.mktemp("honest"))
    place, random = drawn.root / "input" / "custom", np.random.default_rng(0)
    for folder in ("images", "labels"):
        (place / folder).mkdir(parents=True)
    for number in range(COUNT):
        labels = np.zeros((SIDE, SIDE), np.uint16)
        for label in (1, 2, 3):
            x, y = random.integers(6, SIDE - 6, 2)
            cv2.circle(labels, (int(x), int(y)), 5, label, -1)
        cv2.imwrite(str(place / "images" / f"i{number}.png"), np.where(labels > 0, 90, 220).astype(np.uint8))
        cv2.imwrite(str(place / "labels" / f"i{number}.png"), labels)
    rows = {"id": [f"i{n}" for n in range(COUNT)], "group": [f"g{n % GROUPS}" for n in range(COUNT)]}
    pd.DataFrame(rows).to_csv(place / "index.csv", index=False)
    assert cli.main("prepare", drawn.base) == 0
    for fold in range(FOLDS):
        drawn.fold("a", fold)
        drawn.fold("b", fold, 1)
    return drawn


def test_a_new_fold_must_be_trained_as_the_others_of_its_run(world: Drawn, tmp_path: Path) -> None:
    run = tmp_path / "mixed"
    claim(world.config("run=mixed", "model=unet", "model.width=4", "fold=0"), run / "fold0")
    same = ("run=mixed", "model=unet", "model.width=4", "fold=1")
    for other, said in (("model.width=6", "model.width=4"), ("seed=3", "seed=0")):
        with pytest.raises(ConfigError, match=rf"fold0: was trained with {said}.*give run=NAME.*of mixed"):
            claim(world.config(*same, other), run / "fold1")
        assert not (run / "fold1").exists()
    claim(world.config(*same, "predict.spread=true", "train.workers=0", "resume=never"), run / "fold1")
    claim(world.config(*same), run / "fold1")  # and it can be gone on with


def test_folds_that_begin_with_the_same_fold_of_another_run_are_alike(world: Drawn, tmp_path: Path) -> None:
    start = "train.start=oof/other/first/fold{}/model.ckpt"
    claim(world.config("run=on", "fold=0", start.format(0)), tmp_path / "on" / "fold0")
    with pytest.raises(ConfigError, match=r"train\.start=oof/other/first/fold0"):
        claim(world.config("run=on", "fold=1", start.format(2)), tmp_path / "on" / "fold1")
    claim(world.config("run=on", "fold=1", start.format(1)), tmp_path / "on" / "fold1")
    for fold in (0, 1):  # weights of other images serve all folds
        claim(world.config("run=one", f"fold={fold}", start.format(0)), tmp_path / "one" / f"fold{fold}")


def test_folds_of_different_networks_are_no_cv(world: Drawn, capsys: pytest.CaptureFixture[str]) -> None:
    for fold in range(FOLDS):
        world.fold("old", fold, 0, ("foreground",), f"model.width={4 + 2 * (fold == 1)}", "model=unet")
    assert world.evaluate("runs=[a,old]", "name=old") == 1
    said = capsys.readouterr().err
    assert "old: fold 0 was trained with model.width=4, fold 1 with 6" in said
    assert "folds=[…]" in said
    assert not (world.oof / "ensembles" / "old.json").exists()
    assert world.evaluate("runs=[old]", "name=old", "folds=[0,2]") == 0, "these two are alike"


def test_predictions_of_other_weights_are_refused(
    world: Drawn, capsys: pytest.CaptureFixture[str], advised: Callable[[str, str], list[str]]
) -> None:
    for fold in range(FOLDS):
        world.fold("copied", fold, 0, ("foreground",), "predict.size=12", "predict.spread=true")
    assert world.evaluate("runs=[copied]", "name=copied") == 0
    write_json(world.oof / "copied" / "fold1" / "model.ckpt", {"trained": "again"})
    written = world.record("copied")
    assert world.evaluate("runs=[a,copied]", "folds=[0,2]", "name=copied") == 1, "sizes differ"
    assert "predict.size" in capsys.readouterr().err
    assert world.evaluate("runs=[copied]", "name=copied") == 1
    said, place = capsys.readouterr().err, world.oof / "copied" / "fold1"
    assert f"4 of 4 OOF predictions of fold 1 were made by other weights than {place / 'model.ckpt'}" in said
    assert f"delete {place / 'scores.csv'}, then" in said
    again = load(compose(advised(said, "train")))
    assert (again.run, again.fold, again.predict.size, again.predict.spread) == ("copied", 1, 12, True)
    assert world.record("copied") == written, "nothing was written"
    assert world.evaluate("runs=[copied]", "folds=[0,2]", "name=copied") == 0, "these two are of their weights"


def test_folds_that_were_predicted_in_other_ways_are_no_cv(
    world: Drawn, capsys: pytest.CaptureFixture[str], advised: Callable[[str, str], list[str]]
) -> None:
    for fold in range(FOLDS):
        world.fold("ways", fold, 0, ("foreground",), f"predict.tta={'none' if fold == 1 else 'flips'}")
        world.fold("none", fold, 1, ("foreground",), "predict.tta=none")
    assert world.evaluate("runs=[ways]", "name=ways") == 1
    said, one, two = capsys.readouterr().err, world.oof / "ways" / "fold0", world.oof / "ways" / "fold1"
    assert f"{two}: its OOF predictions were made with predict.tta=none, those of {one} with flips" in said
    assert f"delete {two / 'scores.csv'}, then" in said
    again = load(compose(advised(said, "train")))
    assert (again.run, again.fold, again.predict.tta) == ("ways", 1, "flips")
    assert world.evaluate("runs=[ways,none]", "folds=[0,2]", "name=ways") == 0, "runs may differ from one another"
    # The configuration may have been written again by a command that was refused before it predicted.
    (two / "config.yaml").write_text((one / "config.yaml").read_text().replace("fold: 0", "fold: 1"))
    assert world.evaluate("runs=[ways]", "name=ways") == 1
    said = capsys.readouterr().err
    assert f"delete {one / 'scores.csv'} and {two / 'scores.csv'}, then" in said
    assert said.count("./run.sh train ") == 2


def test_predictions_of_earlier_versions_do_not_say_what_made_them(world: Drawn) -> None:
    for fold in range(FOLDS):
        tta = f"predict.tta={'none' if fold == 1 else 'flips'}"
        world.fold("untold", fold, 0, ("foreground",), tta, tagged=False)
    write_json(world.oof / "untold" / "fold1" / "model.ckpt", {"trained": "again"})
    assert world.evaluate("runs=[untold]", "name=untold") == 0


def test_members_alone_are_scored_on_the_ensembles_images(world: Drawn, tmp_path: Path) -> None:
    before = find_run(world.oof, "a").scores("dsb")
    shutil.copytree(world.root / "prepared", tmp_path / "prepared")
    place = tmp_path / "prepared" / "custom" / "folds.csv"
    table = pd.read_csv(place, dtype=str)
    worst = before.groupby("group")["dsb"].mean().idxmin()
    table.loc[table["group"] == worst, "fold"] = "-1"
    table.to_csv(place, index=False)
    assert world.evaluate("runs=[a]", "name=fewer", f"paths.prepared={tmp_path / 'prepared'}") == 0
    expected = before.loc[before["group"] != worst, "dsb"].mean()
    assert expected > before["dsb"].mean() + 0.001
    assert world.record("fewer")["score"]["per_run"]["a"] == pytest.approx(expected)
    found = collect("custom", world.root / "oof", world.root / "submissions")
    ensemble = found.ensemble("fewer")
    assert ensemble is not None
    ensemble.record["score"]["per_run"] = {"a": 0.123}
    (row,) = sections.members(ensemble, found.runs, 0.9)["rows"]
    assert (row["alone"], row["gain"]) == pytest.approx((expected, 0.9 - expected))
    fold = next(run for run in found.runs if run.name == "a").folds[0]
    assert fold.scores is not None
    fold.scores = fold.scores.drop(index=fold.scores.index[fold.scores["group"] != worst][0])
    assert sections.members(ensemble, found.runs, 0.9)["rows"][0]["alone"] is None, "one of them has no score"


@pytest.mark.parametrize("spread", range(FOLDS))
def test_a_band_that_some_folds_have_is_left_out(world: Drawn, spread: int) -> None:
    for fold in range(FOLDS):
        world.fold("spread", fold, 0, ("foreground", "spread") if fold == spread else ("foreground",))
    assert world.evaluate("runs=[spread]", "name=spread") == 0
    assert world.record("spread")["bands"] == ["foreground"]


@pytest.mark.parametrize("more", [("runs=[a]",), ("runs=[a,b]", "evaluate.search=greedy")])
def test_masks_are_tuned_and_scored_by_the_metric_that_was_asked_for(world: Drawn, more: tuple[str, ...]) -> None:
    mask = ("competition.options.truth=mask", "name=mask", "evaluate.tune=true", *more)
    assert world.evaluate(*mask, "competition.options.metric=iou") == 0
    record, table = world.record("mask"), world.table("mask")
    assert record["metric"] == "iou"
    assert record["score"]["cross_fitted"] == pytest.approx(table["iou"].mean())
    assert table["iou"].mean() < table["dice"].mean() - 0.01
    assert max(score for _, score in record["threshold_curve"]) == pytest.approx(table["iou"].mean(), abs=0.02)
    for one in (record["score"].get("search") or {"found": []})["found"]:
        assert one["cross_fitted"] == pytest.approx(table["iou"].mean(), abs=0.02)
    assert world.evaluate(*mask) == 0
    assert world.record("mask")["score"]["cross_fitted"] == pytest.approx(world.table("mask")["dice"].mean())


def test_a_submitted_mask_is_scored_by_the_metric_that_was_asked_for(world: Drawn) -> None:
    config = world.config("competition.options.truth=mask", "competition.options.metric=iou")
    workspace = Workspace(config)
    path = next((world.oof / "a" / "fold0" / "predictions").glob("*.tif"))
    scores = encode(EncodeTask(workspace.competition, workspace.sample(path.stem), path, None, 0.5, None, 0, 0)).scores
    assert scores is not None
    assert scores["score"] == scores["iou"] < scores["dice"]


@pytest.mark.parametrize(
    ("truth", "metric"), [("mask", "nonsense"), ("mask", "dsb"), ("instances", "foo"), ("instances", "hd95")]
)
def test_a_metric_that_nobody_knows_is_refused_when_the_competition_is_opened(
    world: Drawn, truth: str, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"folder": "custom", "truth": truth, "metric": metric}
    config = CompetitionConfig("custom", "folders", None, options)
    with pytest.raises(ConfigError, match=rf"competition\.options\.metric={metric}: unknown .*there are .*dice"):
        competitions.open(config, world.root / "input")
    # The offline notebook has no metrics, and opens what it was exported from.
    monkeypatch.setitem(sys.modules, "histofold.metrics", None)
    assert competitions.open(config, world.root / "input").metric == metric


def test_members_and_correlations_are_of_the_ensembles_metric_and_folds(world: Drawn) -> None:
    metric = "recall_50"
    assert world.evaluate("runs=[a,b]", "folds=[0,1]", f"competition.options.metric={metric}", "name=rec") == 0
    for name in "ab":
        scores = find_run(world.oof, name).scores()
        own = scores.loc[scores["fold"] < 2, metric].mean()
        assert abs(own - scores.loc[scores["fold"] < 2, "score"].mean()) > 0.01
        assert world.record("rec")["score"]["per_run"][name] == pytest.approx(own)
    tables = [find_run(world.oof, name).scores().query("fold < 2").set_index("sample_id") for name in "ab"]
    expected = tables[0]["iou"].corr(tables[1]["iou"])
    assert correlations([find_run(world.oof, name) for name in "ab"], "iou", [0, 1]) == [
        f"errors of a and b correlate by {expected:+.3f}"
    ]


def test_the_report_corrects_what_old_files_say_of_members(world: Drawn) -> None:
    assert world.evaluate("runs=[a,b]", "folds=[0,1]", "competition.options.metric=recall_50", "name=rec") == 0
    found = collect("custom", world.root / "oof", world.root / "submissions")
    ensemble = found.ensemble("rec")
    assert ensemble is not None
    right = ensemble.record["score"]["per_run"]
    ensemble.record["score"]["per_run"] = {"a": 0.123, "b": 0.123}
    rows = sections.members(ensemble, found.runs, 0.5)["rows"]
    assert {row["name"]: row["alone"] for row in rows} == pytest.approx(right)


def test_the_leaderboard_ranks_each_metric_for_itself(world: Drawn, capsys: pytest.CaptureFixture[str]) -> None:
    for name, metric in (("x", "recall_50"), ("y", "dsb"), ("z", "dsb")):
        run = "b" if name == "z" else "a"
        assert world.evaluate(f"runs=[{run}]", f"competition.options.metric={metric}", f"name=board_{name}") == 0
    capsys.readouterr()
    assert world.evaluate() == 0
    text = capsys.readouterr().out
    runs, ensembles = text.split("ensembles (tuned")
    assert "runs (dsb, untuned, OOF)" in runs
    lines = [line.split() for line in ensembles.splitlines() if line.startswith("  board_")]
    assert [line[1] for line in lines] == ["dsb", "dsb", "recall_50"]
    assert float(lines[0][2]) >= float(lines[1][2])
    assert world.evaluate("competition.options.metric=recall_50") == 0
    text = capsys.readouterr().out
    mean = find_run(world.oof, "a").scores()["recall_50"].mean()
    assert f"{mean:.4f}" in next(line for line in text.splitlines() if line.startswith("  a "))


def test_too_few_groups_give_no_interval_anywhere(world: Drawn, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.evaluate("runs=[a]", "folds=[0]", "name=few") == 0
    assert world.table("few")["group"].nunique() == 2
    assert world.record("few")["score"]["interval"] is None
    assert "too few groups for an interval; optimistic" in capsys.readouterr().out
    assert world.evaluate() == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  few "))
    assert line.endswith("[too few groups for an interval]  PARTIAL: folds [0], chosen on itself: optimistic")
    assert cli.main("report", [*world.base, "name=few"]) == 0
    page = (world.oof / "report.html").read_text(encoding="utf-8")
    assert "<span>95 % interval<br>" not in page
    assert world.evaluate("runs=[a]", "name=few") == 0
    low, high = world.record("few")["score"]["interval"]
    assert low < high


def test_only_an_honest_score_is_called_cv(world: Drawn) -> None:
    for folds in ("[0]", "[0,1]"):
        assert world.evaluate("runs=[a]", f"folds={folds}", "name=called") == 0
        ensemble = Ensemble.read(Ensemble.place(world.root / "oof", "custom", "called"))
        score = f"{ensemble.score['cross_fitted']:.4f}"
        told = f"{score}, chosen on itself: optimistic" if folds == "[0]" else f"CV {score}"
        assert title(ensemble) == f"called, {told}"
    pruned = replace(ensemble, score={**ensemble.score, "pruned": ["b_fast"]})
    assert title(pruned) == f"called, {score}, depth of b_fast chosen on itself: optimistic"


def test_partial_runs_are_marked_by_the_folds_that_there_are(world: Drawn, capsys: pytest.CaptureFixture[str]) -> None:
    world.fold("part", 1, 2)
    assert world.evaluate() == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert "PARTIAL: 4 samples, folds 1" in lines["part"]
    assert "PARTIAL" not in lines["a"]
    assert cli.main("report", world.base) == 0
    page = (world.oof / "report.html").read_text(encoding="utf-8")
    board = page[page.index('id="runs"') : page.index("</section>", page.index('id="runs"'))]
    rows = {name: next(row for row in board.split("<tr>") if f">{name}<small>" in row) for name in ("a", "part")}
    assert "<small>PARTIAL</small>" in rows["part"]
    assert "<small>PARTIAL</small>" not in rows["a"]


@pytest.mark.parametrize(("runs", "said"), [("[]", "runs=[]: names no run"), ("[a,b,a]", "a is there more than once")])
def test_no_run_and_a_run_twice_are_refused(
    world: Drawn, runs: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.evaluate(f"runs={runs}", "name=odd") == 2
    assert said in capsys.readouterr().err
