"""What a fold is given by the others, weights and settings, owes nothing to the fold's own truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from histofold.compose import compose, load
from histofold.evaluation.ensembling import Mixture, mix
from histofold.evaluation.oof import find_run
from histofold.evaluation.tune import Members
from histofold.inference.bandfile import BandFile
from histofold.targets import build
from histofold.workspace import Workspace

NAMES = ["run", "blurred", "empty"]


@pytest.fixture(scope="module", params=["instances", "mask"])
def world(request: pytest.FixtureRequest, draw: Callable[..., Any]) -> Any:
    """Three runs: one as drawn, one blurred, one that sees less."""
    made = draw(6, f"competition.options.truth={request.param}", seed=3)
    for path in sorted((made.oof / "run").rglob("*.tif")):
        with BandFile(path) as file:
            codes = file.rows(0, file.height)
        soft = np.stack([cv2.GaussianBlur(band, (0, 0), 2) for band in codes])
        for name, values in (("blurred", soft), ("empty", codes // 2)):
            _write(made.oof / name / path.relative_to(made.oof / "run"), values)
    for name in NAMES[1:]:
        for fold in (0, 1):
            for file_name in ("scores.csv", "config.yaml", "model.ckpt"):
                there = made.oof / name / f"fold{fold}" / file_name
                there.write_bytes((made.oof / "run" / f"fold{fold}" / file_name).read_bytes())
    return made


def _write(path: Any, codes: Any) -> None:
    from histofold.inference.bandfile import BandFileWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = codes.shape[1:]
    with BandFileWriter(path, build("border").bands, height, width, 1.0, height, width) as writer:
        writer.write_rows(0, codes)


def mixture(world: Any, search: str) -> tuple[Mixture, pd.Series]:
    """What `evaluate` finds, and the fold of each sample."""
    workspace = Workspace(load(compose(world.overrides("runs=[run,blurred,empty]", f"evaluate.search={search}"))))
    table = workspace.folds("default")
    table = table[table["split"] == "train"]
    members = Members.of(workspace, [find_run(workspace.oof, name) for name in NAMES], table, [0, 1])
    return mix(workspace, members, NAMES), members.rows["fold"]


@pytest.mark.parametrize("fold", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("search", ["equal", pytest.param("greedy", marks=pytest.mark.slow), "optimise"])
def test_shuffled_truth_of_a_fold_leaves_its_cross_fitted_prediction(world: Any, search: str, fold: int) -> None:
    before, folds = mixture(world, search)
    place = world.root / "input" / "custom" / "labels"
    mine = [str(name) for name in before.tuned.scores["sample_id"][folds == fold]]
    kept = {name: (place / f"{name}.png").read_bytes() for name in mine}
    try:
        for name in mine:
            labels = world.truth(name)
            # Small specks elsewhere: quite another truth, which wants other weights and settings.
            moved = np.roll(cv2.erode(labels, np.ones((9, 9))), (9, 5), (0, 1))
            cv2.imwrite(str(place / f"{name}.png"), moved)
        after, _ = mixture(world, search)
    finally:
        for name, data in kept.items():
            (place / f"{name}.png").write_bytes(data)
    given = [[one.tuned.own[at] for at in np.flatnonzero(folds == fold)] for one in (before, after)]
    assert given[0] == given[1]
    assert after.per_fold.get(fold) == before.per_fold.get(fold)
    assert search == "equal" or len(before.per_fold) == 2
    # The other fold was chosen for on this truth, and is given something else.
    others = [[one.tuned.own[at] for at in np.flatnonzero(folds != fold)] for one in (before, after)]
    assert others[0] != others[1] or after.per_fold.get(1 - fold) != before.per_fold.get(1 - fold)
