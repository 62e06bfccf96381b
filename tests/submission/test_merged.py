"""Where labels are components of a binary mask, every instance score says so: in evaluate, submit and the report."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from histofold.metrics.merged import NOTE, marked

MERGED = "competition.options.merged=true"
BY_OBJECT = "competition.options.metric=dsb"


def test_only_instance_scores_of_merged_labels_are_marked() -> None:
    assert [marked(name, True) for name in ("dsb", "aji", "dice", "iou")] == ["dsb*", "aji*", "dice", "iou"]
    assert marked("aji", False) == "aji"


@pytest.mark.parametrize("merged", [True, False])
def test_the_scores_of_every_verb_are_marked(
    draw: Callable[..., Any], capsys: pytest.CaptureFixture[str], merged: bool
) -> None:
    world = draw(3, BY_OBJECT, *([MERGED] if merged else []), seed=2)
    capsys.readouterr()
    assert world.run("evaluate", "runs=[run]", "evaluate.tune=false") == 0
    table = capsys.readouterr().out
    words = next(line for line in table.splitlines() if "aji" in line).split()
    star = "*" if merged else ""
    assert {f"dsb{star}", f"aji{star}", f"pq{star}", "dice", "iou"} <= set(words)
    assert (NOTE in table) == merged
    assert bool(re.search(r"found, \d+ missed, .*\*$", table, re.MULTILINE)) == merged
    for verb in ("evaluate", "submit"):
        assert world.run(verb) == 0
        said = capsys.readouterr().out
        assert (NOTE in said) == merged
    assert world.run("report") == 0
    page = (world.submission / "report.html").read_text()
    assert ("components of a binary mask" in page) == merged
    assert (">aji*<" in page) == merged


def test_merged_labels_are_ranked_by_pixel(draw: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    world = draw(3, MERGED, seed=2)
    capsys.readouterr()
    assert world.run("evaluate", "runs=[run]", "evaluate.tune=false") == 0
    table = capsys.readouterr().out
    assert "(dice)" in table
    assert NOTE in table, "instance scores stand beside it"
    assert world.run("evaluate") == 0
    board = capsys.readouterr().out
    assert "runs (dice, untuned, OOF)" in board
    # An ensemble that was chosen by another metric keeps it, and is ranked among its like.
    assert world.run("evaluate", "runs=[run]", "evaluate.tune=false", "name=old", BY_OBJECT) == 0
    capsys.readouterr()
    assert world.run("evaluate") == 0
    lines = capsys.readouterr().out.splitlines()
    ensembles = [line.split() for line in lines[lines.index("ensembles (tuned, cross-fitted)") + 1 :]]
    assert [words[:2] for words in ensembles] == [["one", "dice"], ["old", "dsb"]]
