"""The page as text: what it says, what it leaves out, and that data cannot become markup."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from histofold import given
from histofold.competitions.base import Competition, Sample
from histofold.config import Config
from histofold.errors import DataError
from histofold.evaluation.repeats import FoldSets
from histofold.inference.bandfile import BandFileWriter
from histofold.report import plots, run
from histofold.report.data import collect
from histofold.report.page import Content, render
from histofold.report.run import build
from histofold.targets.base import Band

Places = tuple[Path, Path]


class Tags(HTMLParser):
    """Counts tags and checks that they nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("src", "href", "action", "data", "poster")]
        if tag not in ("meta", "link", "img", "input", "br", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def read(path: Path) -> tuple[str, Tags]:
    text = path.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    return text, tags


def test_the_whole_page(competition: Competition, full: Places) -> None:
    path = build(competition, *full, workers=1)
    assert path == full[1] / "invented" / "duo" / "report.html"
    text, tags = read(path)
    for anchor in ("summary", "runs", "curves", "cv", "threshold", "members", "gallery", "submitted"):
        assert f'id="{anchor}"' in text
    assert tags.names.count("li") >= 12 + 4, "a card for each sample"
    assert "Ensemble duo" in text
    assert "0.71" in text
    assert "c0ffee" in text
    assert "What this page cannot show" not in text


def facts(text: str, sample_id: str) -> dict[str, str]:
    """What the viewer says of a sample of the training set."""
    card = text.split(f'data-id="{sample_id}"')[1].split("</dl>")[0].replace("<wbr>", "")
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", card))


@pytest.mark.parametrize(
    ("folds", "own", "scored"),
    [([0, 1], " (final settings)", " (cross-fitted)"), ([0], "", "")],
    ids=["crossed", "one"],
)
def test_counts_of_outlines_and_of_scores_are_told_apart(
    competition: Competition,
    full: Places,
    ensemble: Callable[..., dict[str, Any]],
    folds: list[int],
    own: str,
    scored: str,
) -> None:
    scores = pd.read_csv(full[0] / "invented" / "ensembles" / "duo.csv").assign(found=17, missed=18, false=19)
    ensemble(full[0], scores[scores["fold"].isin(folds)], folds=folds)
    said = facts(read(build(competition, *full, workers=1))[0], "train_00")
    assert said["true objects"] == "4"
    assert said[f"predicted objects{own}"] == "4"
    assert [said[f"{name}{scored}"] for name in ("found", "missed", "false")] == ["17", "18", "19"]
    assert "dice" in said
    if own:
        assert said[f"missed{own}"] == said[f"false{own}"] == "0"


def test_one_member_is_one_run_and_long_names_break_after_an_underscore(
    competition: Competition, full: Places, ensemble: Callable[..., dict[str, Any]]
) -> None:
    scores = pd.read_csv(full[0] / "invented" / "ensembles" / "duo.csv")
    alone, decoder = [{"run": "first", "weight": 1.0}], {"name": "watershed_distance", "threshold": 0.5}
    text, _ = read(build(competition, *full, workers=1))
    assert "<dd>2 runs</dd>" in text
    ensemble(full[0], scores, members=alone, instances=decoder)
    # Decoding needs bands that these predictions have not.
    found = collect(competition.name, *full)
    shown = next(one for one in found.ensembles if one.name == "duo")
    text = render(Content(competition, found, shown, scores, "it", 0.5, None, {}, []))
    assert "<dd>1 run</dd>" in text
    assert "<dd>watershed_<wbr>distance</dd>" in text


def test_nothing_is_loaded_from_outside(competition: Competition, full: Places) -> None:
    text, tags = read(build(competition, *full, workers=1))
    assert all(link.startswith(("data:", "#")) for link in tags.links)
    assert not re.search(r"@import|url\((?!['\"]?data:)", text)
    assert "default-src 'none'" in text


def test_data_stays_text(competition: Competition, full: Places) -> None:
    text, tags = read(build(competition, *full, workers=1))
    nasty = competition.samples()[2].stratum
    assert nasty not in text
    assert "&lt;script&gt;alert" in text
    assert tags.names.count("script") == 1
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text


def test_numbers_agree_with_the_files(competition: Competition, full: Places) -> None:
    scores = pd.read_csv(full[0] / "invented" / "ensembles" / "duo.csv")
    text, _ = read(build(competition, *full, workers=1))
    assert f"<b>{scores['score'].mean():.4f}</b>" in text
    shown = [float(value) for value in re.findall(r'data-fold="[01]".*?data-score="([0-9.]+)"', text, re.S)]
    assert shown == sorted(scores["score"])


def test_without_an_ensemble_it_shows_the_best_run_and_says_so(
    competition: Competition, places: Places, write: Callable[..., pd.DataFrame]
) -> None:
    write(places[0], "first", 0)
    write(places[0], "second", 3)
    path = build(competition, *places, workers=1)
    assert path == places[0] / "invented" / "report.html"
    text, _ = read(path)
    assert "There is no ensemble yet" in text
    assert "Best run: first" in text
    assert "Nothing was submitted yet" in text
    assert 'id="gallery"' in text
    assert 'id="members"' not in text
    assert 'id="submitted"' not in text


def test_the_best_run_is_shown_by_the_images_that_its_folds_hold_today(
    competition: Competition, places: Places, write: Callable[..., pd.DataFrame]
) -> None:
    scores = write(places[0], "first", 0)
    worst = scores.sort_values("score", kind="stable").iloc[0]
    kept = scores[scores["sample_id"] != worst["sample_id"]]
    today = FoldSets({"default": scores.assign(fold=scores["fold"].where(scores.index.isin(kept.index), -1))})
    text, _ = read(build(competition, *places, workers=1, counts=today))
    assert f"<b>{kept['score'].mean():.4f}</b>" in text
    assert f"<b>{scores['score'].mean():.4f}</b>" not in text


def test_with_nothing_at_all_it_says_what_to_do(competition: Competition, places: Places) -> None:
    text, _ = read(build(competition, *places, workers=1))
    assert "No fold is scored yet" in text
    assert "./run.sh train competition=folders competition.name=invented fold=0" in text
    with given.command(["competition=folders", "competition.name=invented", "paths.oof=/mine"]):
        text, _ = read(build(competition, *places, workers=1))
    assert "./run.sh train competition=folders competition.name=invented paths.oof=/mine fold=0" in text


@pytest.mark.parametrize("known", ["first", None])
def test_runs_that_were_scored_by_another_metric_come_last(
    competition: Competition, places: Places, write: Callable[..., pd.DataFrame], known: str | None
) -> None:
    competition.metric = "f2_50"
    for name in ("first", "second"):
        for fold, table in write(places[0], name, 0).groupby("fold"):
            path = places[0] / "invented" / name / f"fold{fold}" / "scores.csv"
            table.assign(f2_50=0.25 if name == known else np.nan).to_csv(path, index=False)
    text, _ = read(build(competition, *places, workers=1))
    board = text.split('id="runs"')[1].split("</section>")[0]
    assert re.findall(r'<th scope="row">(\w+)<.*?<td class="n strong">(.*?)</td>', board) == [
        ("first", "0.2500" if known else "–"),
        ("second", "–"),
    ]
    assert "the run was not scored by f2_50" in board
    assert "nan" not in re.sub("<[^>]*>", " ", text).split()
    assert ("Best run: first" in text) == ("Mean F2 at IoU 0.5 of run first" in text) == (known is not None)
    assert ("No run is scored by f2_50:" in text) == (known is None)
    assert "No fold is scored yet" not in text


def test_a_run_that_is_still_training(competition: Competition, places: Places) -> None:
    folder = places[0] / "invented" / "young" / "fold0"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("epoch,step,lr,loss,score\n1,10,0.1,0.9,\n")
    text, _ = read(build(competition, *places, workers=1))
    assert 'id="curves"' in text
    assert 'id="runs"' not in text


def test_a_partial_cv_is_called_partial(
    competition: Competition,
    places: Places,
    write: Callable[..., pd.DataFrame],
    ensemble: Callable[..., dict[str, Any]],
) -> None:
    scores = write(places[0], "first", 0, folds=(1,))
    members = [{"run": "first", "weight": 1.0}]
    ensemble(places[0], scores, partial=True, folds=[1], members=members, instances=None, threshold=0.4)
    text, _ = read(build(competition, *places, workers=1))
    assert "a partial CV" in text
    assert "The CV is partial" in text
    assert "0.400" in text, "the threshold"


def test_one_fold_alone_is_not_called_cross_fitted(
    competition: Competition,
    places: Places,
    write: Callable[..., pd.DataFrame],
    ensemble: Callable[..., dict[str, Any]],
) -> None:
    scores = write(places[0], "first", 0, folds=(1,))
    search = {"asked": "best", "how": "at every threshold", "nested": None}
    search["found"] = [
        {"strategy": "equal", "chosen": True, "cross_fitted": 0.7, "optimistic": 0.7, "weights": {"first": 1.0}}
    ]
    more: dict[str, Any] = {"partial": True, "members": [{"run": "first", "weight": 1.0}]}
    more["score"] = {"optimistic": 0.71, "cross_fitted": 0.7, "interval": [0.6, 0.8], "search": search}
    ensemble(places[0], scores, folds=[1], **more)
    text, _ = read(build(competition, *places, workers=1))
    said = "ne fold only: its settings were chosen on itself, so even the cross-fitted score is optimistic"
    assert text.count(said) == 2, "at the top and at the table"
    assert "Cross-fitted DSB" not in text
    assert "scores are cross-fitted" not in text
    assert "which this one fold chose itself" in text
    assert "which chose its weights itself" in text
    ensemble(places[0], scores, folds=[0, 1], **more)
    text, _ = read(build(competition, *places, workers=1))
    assert said not in text
    assert "Cross-fitted DSB" in text
    assert "scores are cross-fitted" in text
    assert "which chose its weights itself" not in text


@pytest.mark.parametrize(("groups", "shown"), [(1, 0), (2, 0), (3, 1)])
def test_no_interval_of_one_or_two_groups(
    competition: Competition, full: Places, ensemble: Callable[..., dict[str, Any]], groups: int, shown: int
) -> None:
    scores = pd.read_csv(full[0] / "invented" / "ensembles" / "duo.csv")
    scores["group"] = [f"g{index % groups}" for index in range(len(scores))]
    ensemble(full[0], scores)
    text, _ = read(build(competition, *full, workers=1))
    assert text.count("<span>95 % interval<br>") == shown


def test_an_ensemble_without_its_table_names_the_file(competition: Competition, full: Places) -> None:
    path = full[0] / "invented" / "ensembles" / "duo.csv"
    path.unlink()
    text, _ = read(build(competition, *full, workers=1))
    assert "No fold is scored yet" not in text
    assert f"{path} is not there. Run evaluate again" in text
    # As a shell takes it; there is no configs/competition/invented.yaml to name.
    command = "./run.sh evaluate competition=folders competition.name=invented name=duo 'runs=[first,second]'"
    assert command in html.unescape(text)
    assert 'data-id="test_00"' in text, "test pictures do not need it"
    assert "<span>95 % interval<br>" not in text, "of how many groups is unknown"


def test_predictions_that_are_gone_are_named(competition: Competition, full: Places) -> None:
    for name in ("first", "second"):
        (full[0] / "invented" / name / "fold0" / "predictions" / "train_00.tif").unlink()
    text, _ = read(build(competition, *full, workers=1))
    assert "Predictions are gone" in text
    assert "train_00" in text


def test_a_broken_prediction_is_named_and_the_others_are_shown(competition: Competition, full: Places) -> None:
    (full[0] / "invented" / "first" / "fold0" / "predictions" / "train_01.tif").write_bytes(b"no TIFF")
    text, _ = read(build(competition, *full, workers=1))
    assert "Not readable" in text
    assert 'data-id="train_01"' not in text
    assert 'data-id="train_02"' in text


def test_an_unknown_name_is_refused(competition: Competition, full: Places) -> None:
    with pytest.raises(DataError, match="no ensemble 'trio'; found duo"):
        build(competition, *full, name="trio", workers=1)


def test_a_broken_table_is_named(competition: Competition, full: Places) -> None:
    (full[0] / "invented" / "first" / "fold0" / "scores.csv").write_text("id,score\n1,2\n")
    with pytest.raises(DataError, match=r"fold0/scores\.csv: column 'sample_id' is missing"):
        build(competition, *full, workers=1)


def test_the_limit_is_kept_and_told(competition: Competition, full: Places) -> None:
    text, _ = read(build(competition, *full, workers=1, limit=4))
    assert "4 of 12 samples" in text
    assert len(re.findall(r'data-fold="[01]"', text)) == 4


def test_the_verb_writes_and_says_where(
    competition: Competition, full: Places, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run.competitions, "open", lambda config, folder: competition)
    places = {"input": full[0], "oof": full[0], "submissions": full[1], "prepared": full[0]}
    settings = SimpleNamespace(
        competition=None, path=places.__getitem__, name="duo", evaluate=SimpleNamespace(workers=1)
    )
    run.report(cast(Config, settings))
    assert str(full[1] / "invented" / "duo" / "report.html") in capsys.readouterr().out


def test_the_last_epoch_gets_the_out_of_fold_score(competition: Competition, full: Places) -> None:
    scores = pd.read_csv(full[0] / "invented" / "first" / "fold0" / "scores.csv")["score"].mean()
    text, _ = read(build(competition, *full, workers=1))
    assert f"<title>fold 0: 6, {scores:.4g}</title>" in text


def test_a_run_without_validation_has_its_scores_in_words_and_no_empty_chart(
    competition: Competition, full: Places
) -> None:
    chart = "<title>validation score of first</title>"
    assert chart in read(build(competition, *full, workers=1))[0]
    means = []
    for fold in (0, 1):
        folder = full[0] / "invented" / "first" / f"fold{fold}"
        table = pd.read_csv(folder / "metrics.csv")
        table.assign(score=np.nan).to_csv(folder / "metrics.csv", index=False)
        means.append(pd.read_csv(folder / "scores.csv")["score"].mean())
    text, _ = read(build(competition, *full, workers=1))
    assert chart not in text
    ends = f"fold 0 ends at {means[0]:.3f}, fold 1 ends at {means[1]:.3f}"
    assert f"No score on the way; {ends}." in text


def test_a_single_epoch_stands_in_the_middle(competition: Competition, full: Places) -> None:
    for fold in (0, 1):
        folder = full[0] / "invented" / "first" / f"fold{fold}"
        pd.read_csv(folder / "metrics.csv").iloc[:1].to_csv(folder / "metrics.csv", index=False)
    (figure,) = plots.curves(collect("invented", *full).runs[0])
    places = [float(x) for x in re.findall(r'<circle class="dot[^"]*" cx="([\d.]+)"', figure.svg)]
    axis = re.search(r'<line class="axis" x1="([\d.]+)" x2="([\d.]+)"', figure.svg)
    assert axis is not None
    middle = (float(axis[1]) + float(axis[2])) / 2
    assert places == pytest.approx([middle, middle], abs=0.2)
    assert ">0<" not in figure.svg
    assert ">1<" in figure.svg


def test_a_score_that_stays_at_zero_has_no_axis_of_millionths(competition: Competition, full: Places) -> None:
    for fold in (0, 1):
        folder = full[0] / "invented" / "first" / f"fold{fold}"
        for name in ("metrics.csv", "scores.csv"):
            pd.read_csv(folder / name).assign(score=0.0).to_csv(folder / name, index=False)
    _, figure = plots.curves(collect("invented", *full).runs[0])
    assert "validation score" in figure.title
    assert re.findall(r">-?[\d.]+e-\d+<", figure.svg) == []


def test_minutes_count_each_fold_once(competition: Competition, full: Places) -> None:
    path = full[0] / "invented" / "first" / "fold0" / "metrics.csv"
    path.write_text("epoch,step,lr,loss,score,seconds\n1,1,1,1,,60\n2,2,1,1,,120\n")
    found = collect("invented", *full)
    assert found.runs[0].minutes == pytest.approx((120 + 3) / 60)


@pytest.mark.slow
def test_hundreds_of_heavy_images_stay_below_15_megabytes(
    competition: Competition, places: Places, monkeypatch: pytest.MonkeyPatch, ensemble: Callable[..., dict[str, Any]]
) -> None:
    """Noise is the worst that an encoder can meet; hundreds of small objects the worst for outlines."""
    random = np.random.default_rng(0)
    samples = [Sample(f"n{i:03}", "train", 320, 320, f"g{i}", "noise") for i in range(260)]
    noise = random.integers(0, 256, (320, 320, 3), dtype=np.uint8)
    y, x = np.mgrid[:320, :320]
    labels = np.where(((y % 16) - 8) ** 2 + ((x % 16) - 8) ** 2 < 36, (y // 16) * 20 + x // 16 + 1, 0).astype(np.int32)
    monkeypatch.setattr(type(competition), "samples", lambda self: samples)
    monkeypatch.setattr(type(competition), "image", lambda self, name: noise)
    monkeypatch.setattr(type(competition), "labels", lambda self, name: np.roll(labels, 3, axis=1))
    folder = places[0] / "invented" / "first" / "fold0"
    path = folder / "predictions" / "n000.tif"
    with BandFileWriter(path, (Band("foreground", 0.0, 1.0),), 320, 320) as writer:
        writer.write_rows(0, np.where(labels > 0, 230, 10).astype(np.uint8)[None])
    for sample in samples[1:]:
        (folder / "predictions" / f"{sample.sample_id}.tif").hardlink_to(path)
    columns = {"sample_id": [s.sample_id for s in samples], "fold": 0, "stratum": "noise", "group": "", "score": 0.5}
    scores = pd.DataFrame(columns)
    scores.to_csv(folder / "scores.csv", index=False)
    ensemble(places[0], scores, members=[{"run": "first", "weight": 1.0}])
    page = build(competition, *places, workers=1)
    assert 3e6 < page.stat().st_size < 15e6
    assert page.read_text(encoding="utf-8").count('class="card"') == 260
