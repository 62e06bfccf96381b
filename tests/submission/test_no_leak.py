"""Cross-fitting leaks nothing, through files: another truth of a fold changes nothing in what that fold is given."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from histofold.evaluation import ensembling, simplest
from histofold.evaluation import run as evaluation
from histofold.evaluation.ensembling import Mixture
from histofold.evaluation.search import Found
from histofold.inference.bandfile import BandFile, BandFileWriter
from histofold.targets import build

Given = dict[int, tuple[Any, Any, Any]]
"""Fold → the weights of its runs, the setting of each of its samples, and what their cross-fitted predictions have."""


def add_run(world: Any) -> None:
    """A second run `other` that sees the left half of every image well and little of the right one."""
    shutil.copytree(world.oof / "run", world.oof / "other")
    for path in (world.oof / "other").rglob("*.tif"):
        with BandFile(path) as file:
            codes = file.rows(0, file.height)
        faint = codes.copy()
        faint[0, :, codes.shape[2] // 2 :] //= 2
        with BandFileWriter(path, build("border").bands, *codes.shape[1:], 1.0, *codes.shape[1:]) as writer:
            writer.write_rows(0, faint)


def spoil_truth(world: Any, fold: int) -> None:
    """The right halves of a fold's labels become empty, so that `other`, which hardly sees them, is the better run."""
    table = pd.read_csv(world.root / "prepared" / "custom" / "folds.csv", dtype={"sample_id": str})
    for sample_id in table.loc[(table["fold"] == fold) & (table["split"] == "train"), "sample_id"]:
        path = world.root / "input" / "custom" / "labels" / f"{sample_id}.png"
        labels = np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        labels[:, labels.shape[1] // 2 :] = 0
        cv2.imwrite(str(path), labels)


def given(world: Any, strategy: str, monkeypatch: pytest.MonkeyPatch) -> Given:
    """Evaluate, and what each fold was given."""
    searched: list[Found] = []
    mixed: list[Mixture] = []

    def search(*arguments: Any, **named: Any) -> Found:
        searched.append(real_search(*arguments, **named))
        return searched[-1]

    def simplest(*arguments: Any) -> Found:
        searched.append(real_simplest(*arguments))
        return searched[-1]

    def mix(*arguments: Any) -> Mixture:
        mixed.append(real_mix(*arguments))
        return mixed[-1]

    real_search, real_simplest, real_mix = ensembling.search, ensembling.simplest, evaluation.mix
    with monkeypatch.context() as patched:
        patched.setattr(ensembling, "search", search)
        patched.setattr(ensembling, "simplest", simplest)
        patched.setattr(evaluation, "mix", mix)
        assert world.run("evaluate", "runs=[run,other]", f"evaluate.search={strategy}") == 0
    (mixture,) = mixed
    folds = mixture.members.rows["fold"].to_numpy()
    weights = (
        {fold: chosen[0] for fold, chosen in searched[-1].per_fold.items()}
        if searched
        else dict.fromkeys(set(folds), "equal")
    )
    own = np.array([repr(setting) for setting in mixture.tuned.own])
    extents = np.array([repr(extent) for extent in mixture.tuned.extents])
    return {
        int(fold): (weights[int(fold)], own[folds == fold].tolist(), extents[folds == fold].tolist())
        for fold in np.unique(folds)
    }


@pytest.mark.parametrize(
    ("truth", "strategy"),
    [
        ("mask", "greedy"),
        ("mask", "optimise"),
        ("mask", "best"),
        ("instances", "equal"),
        ("instances", "optimise"),
        ("instances", "best"),
    ],
)
def test_a_folds_own_truth_changes_nothing_of_what_it_is_given(
    draw: Callable[..., Any], truth: str, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = strategy != "equal"
    # So few samples would keep equal weights; here the searches are to be seen.
    monkeypatch.setattr(simplest, "LEAST_FOLDS", 0)
    monkeypatch.setattr(simplest, "LEAST_GROUPS", 0)
    options = [] if truth == "instances" else ["competition.options.truth=mask"]
    world = draw(6, *options)
    add_run(world)
    before = given(world, strategy, monkeypatch)
    spoil_truth(world, 0)
    after = given(world, strategy, monkeypatch)
    assert after[0] == before[0]
    # The other fold learns from this one, so that its choice shows that the truth was spoiled at all.
    assert after[1][0 if searched else 1] != before[1][0 if searched else 1]
