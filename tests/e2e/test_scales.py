"""Slides at different reductions: the same tissue, the same budget of examples, nearly the same Dice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from histofold.cli import main
from histofold.inference.ensemble import Ensemble

DISTANCE = 0.1
"""Of Dice, between any two scales."""

CROPS = {4: 64, 2: 128, 1: 256}
"""Scale → side of tiles and crops: always the same tissue."""

BUDGET = [
    "model=smp", "optimizer.lr=0.001", "train.batch=8", "train.samples_per_epoch=256", "train.epochs=6",
    "train.validate_every=0", "train.accelerator=cpu", "prepare.n_folds=2", "predict.tta=none", "evaluate.bootstrap=50",
]  # fmt: skip


def dice(root: Path, scale: int) -> float:
    """Dice at full size of fold 0, out of fold, with the threshold tuned."""
    places = {name: root / f"{name}_{scale}" for name in ("prepared", "oof", "submissions")}
    places["input"] = root / "input"
    sizes = [f"prepare.scale={scale}", f"prepare.tile={CROPS[scale]}", f"train.crop={CROPS[scale]}"]
    common = ["competition=demo_kidney", *(f"paths.{key}={path}" for key, path in places.items()), *sizes, *BUDGET]
    assert main("prepare", common) == 0
    assert main("train", [*common, "run=net", "fold=0"]) == 0
    assert main("evaluate", [*common, "runs=[net]", "folds=[0]", "name=net"]) == 0
    score: Any = Ensemble.read(places["oof"] / "demo_kidney" / "ensembles" / "net.json").score
    return float(score["optimistic"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_dice_hardly_depends_on_the_scale(tmp_path: Path) -> None:
    found = {scale: dice(tmp_path, scale) for scale in CROPS}
    assert min(found.values()) > 0.6, found
    assert max(found.values()) - min(found.values()) < DISTANCE, found
