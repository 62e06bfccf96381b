"""Slides at different reductions, from TIFF to CSV: the same tissue and number of examples, Dice nearly the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from histofold.cli import main
from histofold.inference.ensemble import Ensemble
from histofold.kaggle import csv
from histofold.kaggle.csv import CsvFormat
from histofold.rle import RunMask
from histofold.sample.kidney import PLANS

DISTANCES = (0.25, 0.1)
"""Of Dice between any two scales: out of fold (three slides, 1,536 examples: .69, .82 and .89 at 4, 2 and 1 in
bfloat16, as a coarse tile holds fewer pixels to learn from), and of what is submitted (.65, .68 and .71). What scale
itself costs, without a network, is far less: see tests/test_upsample.py."""

CROPS = {4: 64, 2: 128, 1: 256}
"""Scale → side of tiles and crops: always the same tissue."""

BUDGET = [
    "model=smp", "optimizer.lr=0.001", "train.batch=8", "train.samples_per_epoch=256", "train.epochs=6",
    "train.validate_every=0", "train.accelerator=cpu", "prepare.n_folds=2", "predict.tta=none", "evaluate.bootstrap=50",
]  # fmt: skip


def dice(root: Path, scale: int) -> tuple[float, float]:
    """Dice at full size: of fold 0, out of fold, with the threshold tuned; and of what is submitted for new slides."""
    places = {name: root / f"{name}_{scale}" for name in ("prepared", "oof", "submissions")}
    places["input"] = root / "input"
    sizes = [f"prepare.scale={scale}", f"prepare.tile={CROPS[scale]}", f"train.crop={CROPS[scale]}"]
    common = ["competition=demo_kidney", *(f"paths.{key}={path}" for key, path in places.items()), *sizes, *BUDGET]
    assert main("prepare", common) == 0
    assert main("train", [*common, "run=net", "fold=0"]) == 0
    assert main("evaluate", [*common, "runs=[net]", "folds=[0]", "name=net"]) == 0
    score: Any = Ensemble.read(places["oof"] / "demo_kidney" / "ensembles" / "net.json").score
    for verb in ("predict", "submit"):
        assert main(verb, [*common, "name=net"]) == 0
    return float(score["optimistic"]), submitted(root, places["submissions"] / "demo_kidney" / "net")


def submitted(root: Path, folder: Path) -> float:
    """Mean Dice of the rows of submission.csv, from its text and the hidden truth's, which submit has to give, too."""
    truths = dict(csv.read(root / "input" / "demo_kidney" / "hidden_truth.csv", CsvFormat("id", "encoding")))
    texts = dict(csv.read(folder / "submission.csv", CsvFormat("id", "predicted")))
    sizes = {plan.slide: (plan.height, plan.width) for plan in PLANS if plan.split == "test"}
    assert set(texts) == set(truths) == set(sizes)
    found = [RunMask(texts[key], size).dice(RunMask(truths[key], size)) for key, size in sizes.items()]
    mean = sum(found) / len(found)
    assert pd.read_csv(folder / "scores.csv")["score"].mean() == pytest.approx(mean, abs=1e-6)
    return mean


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_dice_hardly_depends_on_the_scale(tmp_path: Path) -> None:
    found = {scale: dice(tmp_path, scale) for scale in CROPS}
    for values, distance in zip(zip(*found.values(), strict=True), DISTANCES, strict=True):
        assert min(values) > 0.6, found
        assert max(values) - min(values) < distance, found
