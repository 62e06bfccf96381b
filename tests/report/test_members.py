"""The section on members: what each adds in words that are true, and the searches for weights beside one another."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from histofold.competitions.base import Competition
from histofold.report import sections
from histofold.report.data import Ensemble, collect
from histofold.report.run import build

SEARCH: dict[str, Any] = {
    "asked": "best",
    "how": "at every threshold",
    "nested": 0.7321,
    "found": [
        {
            "strategy": name,
            "chosen": name == "greedy",
            "cross_fitted": 0.71 + number / 100,
            "optimistic": 0.75 + number / 100,
            "weights": {"first": 0.75, "second_run": 0.25 * (number > 0)},
        }
        for number, name in enumerate(("equal", "greedy", "optimise"))
    ],
}


def record(weights: tuple[float, ...], **score: Any) -> Ensemble:
    """An ensemble of runs a, b, c … with these weights, each of which adds something."""
    members = [{"run": name, "weight": weight} for name, weight in zip("abcd", weights, strict=False)]
    adds = {"adds": {str(one["run"]): 0.01 for one in members}}
    return Ensemble("x", {"members": members, "score": score, "extra": adds}, None)


@pytest.mark.parametrize(
    ("weights", "there", "not_there"),
    [
        ((0.5, 0.5), ["loses without a member"], ["lead over", "equal share"]),
        ((0.5, 0.5, 0.0), ["loses without a member", "equal share"], ["lead over"]),
        ((1.0, 0.0), ["lead over the best other one", "equal share"], ["loses without a member"]),
    ],
)
def test_adds_is_told_as_it_is_measured(weights: tuple[float, ...], there: list[str], not_there: list[str]) -> None:
    text = sections.members(record(weights), [], 0.7)["text"]
    assert [part for part in there if part not in text] == []
    assert [part for part in not_there if part in text] == []
    assert "the threshold is the best on all samples, so these numbers are not cross-fitted" in text


def test_adds_of_instances_knows_few_settings() -> None:
    ensemble = record((0.5, 0.5))
    ensemble.record["instances"] = {"name": "watershed"}
    assert "best of a handful on all samples" in sections.members(ensemble, [], 0.7)["text"]


@pytest.mark.parametrize("recorded", [{"first": 0.5, "second": None}, {"first": 0.5}, {"first": 0.5, "second": 0.6}])
def test_a_run_without_the_ensembles_metric_has_no_score_beside_the_others(
    competition: Competition, full: tuple[Path, Path], ensemble: Callable[..., dict[str, Any]], recorded: dict[str, Any]
) -> None:
    """Its `score` is of another metric, as is what earlier versions recorded for it."""
    path = full[0] / "invented" / "first"
    for fold in (0, 1):
        table = pd.read_csv(path / f"fold{fold}" / "scores.csv")
        table.assign(f2_50=0.25).to_csv(path / f"fold{fold}" / "scores.csv", index=False)
    scores = pd.read_csv(full[0] / "invented" / "ensembles" / "duo.csv")
    ensemble(full[0], scores, metric="f2_50", score={"cross_fitted": 0.73, "per_run": recorded})
    found = collect("invented", *full)
    table = sections.members(found.ensembles[0], found.runs, 0.73)
    assert [(row["alone"], row["gain"]) for row in table["rows"]] == [(0.25, 0.48), (None, None)]
    assert "“–”: the run has no score by f2_50" in table["text"]
    text = build(competition, *full, workers=1).read_text(encoding="utf-8")
    assert "Cross-fitted F2 at IoU 0.5 on out-of-fold predictions" in text
    assert "nan" not in re.sub("<[^>]*>", "", text.split('id="members"')[1].split("<h3>")[0]).split()
    # One fold that was scored by it is not the run.
    (path / "fold1" / "scores.csv").write_text((path / "fold1" / "scores.csv").read_text().replace("0.25", ""))
    found = collect("invented", *full)
    assert [row["alone"] for row in sections.members(found.ensembles[0], found.runs, 0.73)["rows"]] == [None, None]


def test_a_run_that_is_gone_has_the_score_that_was_recorded() -> None:
    ensemble = record((0.5, 0.25, 0.25), per_run={"a": 0.5, "b": None, "c": float("nan")})
    assert [row["alone"] for row in sections.members(ensemble, [], 0.75)["rows"]] == [0.5, None, None]


def test_an_ensemble_without_a_search_shows_none() -> None:
    ensemble = record((0.5, 0.5))
    ensemble.record["extra"] = {}
    found = sections.members(ensemble, [], 0.7)
    assert found["searches"] is None
    assert "Adds" not in found["text"]


def test_a_single_search_was_not_chosen_among_others() -> None:
    found = sections.members(record((0.5, 0.5), search={**SEARCH, "asked": "greedy", "nested": None}), [], 0.7)
    assert "bootstrap" not in found["searches"]["text"]


def test_the_page_shows_the_searches(
    competition: Competition, full: tuple[Path, Path], ensemble: Callable[..., dict[str, Any]]
) -> None:
    scores = pd.read_csv(full[0] / "invented" / "ensembles" / "duo.csv")
    ensemble(full[0], scores, score={"cross_fitted": 0.73, "per_run": {}, "search": SEARCH}, extra={"adds": {}})
    text = build(competition, *full, workers=1).read_text(encoding="utf-8")
    part = text[text.index("Which weights") : text.index("Do the runs fail")]
    for name, cross_fitted in (("Equal weights", "0.7100"), ("Greedy selection", "0.7200"), ("Direct", "0.7300")):
        assert part.index(name) < part.index(cross_fitted)
    assert part.count("<small>kept</small>") == 1
    assert part.index("Greedy") < part.index("kept") < part.index("Direct")
    assert "first 0.75, second_<wbr>run 0.25" in part
    assert "second_<wbr>run 0.00" not in part
    assert "it is 0.7321" in part


def test_metrics_that_most_people_ask_for_come_first() -> None:
    assert sections.by_interest(["precision_50", "iou", "ap50", "dq", "dice"]) == [
        "dice", "ap50", "iou", "precision_50", "dq",
    ]  # fmt: skip


def test_the_threshold_of_a_decoder_is_marked_on_its_curve() -> None:
    ensemble = record((1.0,))
    ensemble.record["threshold_curve"] = [[0.3, 0.5], [0.5, 0.7], [0.6, 0.6]]
    nothing = np.zeros((2, 256), np.int64)
    for more, said in (
        ({"threshold": None, "instances": {"name": "watershed", "threshold": 0.5}}, "chosen 0.5"),
        ({"threshold": 0.3, "instances": None}, "chosen 0.3"),
    ):
        ensemble.record.update(more)
        found = sections.tuning(ensemble, nothing, 0.5)
        assert found is not None
        assert f">{said}<" in found["figures"][0].svg
    ensemble.record.update({"threshold": None, "instances": {"name": "flow"}})
    found = sections.tuning(ensemble, nothing, 0.5)
    assert found is not None
    assert ">chosen" not in found["figures"][0].svg


def test_the_competitions_metric_stands_there_once(competition: Competition, full: tuple[Path, Path]) -> None:
    runs = collect("invented", *full).runs
    assert "dice" in (sections.board(runs) or {})["others"]
    assert "dice" not in (sections.board(runs, metric="dice") or {})["others"]
