"""What `submit` says of the known truth: every score that `evaluate` shows, split by split, as contests rank them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from histofold import metrics
from histofold.competitions import images
from histofold.evaluation.scoring import final_scores
from histofold.submission.run import score_lines


def test_every_split_has_the_contests_own_numbers(draw: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    world = draw(3, seed=5)
    index = world.root / "input" / "custom" / "index.csv"
    table = pd.read_csv(index)
    table.loc[table["split"] == "test", "split"] = ["testA", "testA", "testB", "testB"]
    table.to_csv(index, index=False)
    assert world.run("evaluate", "runs=[run]", "evaluate.tune=false") == 0
    capsys.readouterr()
    assert world.run("submit") == 0
    said = capsys.readouterr().out
    written = pd.read_csv(world.submission / "scores.csv").set_index("sample_id")
    for name, row in written.iterrows():
        labels = images.integers(world.submission / "labels" / f"{name}.tif")
        expected = final_scores(world.truth(str(name)), labels, "dsb")
        assert {key: row[key] for key in expected} == pytest.approx(expected)
    head = next(line for line in said.splitlines() if "aji" in line)
    assert head.split() == ["n", "dsb", "dice", "iou", "ap50", "ap75", "ap90", "f1_50", "pq", "aji"]
    for split, part in written.groupby("split"):
        means = " ".join(f"{part[key].mean():.4f}" for key in head.split()[1:])
        assert f"{split} {len(part)} {means}" in " ".join(said.split())
        assert (
            f"{split}: by the GlaS rule: object F1 {part['object_f1'].mean():.4f}, object Dice "
            f"{part['object_dice'].mean():.4f}, object Hausdorff {part['object_hausdorff'].mean():.1f} px\n"
        ) in said
        assert f"{split}: objects at IoU .5: {part['found'].sum():.0f} found" in said
    assert written["object_hausdorff"].mean() > 0
    assert "\nby the GlaS rule" not in said, "no two contests' splits are pooled"


def test_one_split_of_masks_has_its_means_and_its_pixels_together() -> None:
    pixels = np.array([[8, 10, 9], [0, 4, 6]])
    rows = [metrics.pooled_counts(*row) | dict(zip(metrics.PIXELS, row, strict=True)) for row in pixels.tolist()]
    scores = pd.DataFrame(rows).assign(split="test", stratum="slide")
    said = score_lines(scores.assign(score=scores["dice"]), "dice").splitlines()
    assert said[0] == f"against the known truth: dice {scores['dice'].mean():.4f} over 2 samples"
    assert said[1].split() == ["n", "dice", "iou"]
    assert said[2].split() == ["all", "2", f"{scores['dice'].mean():.4f}", f"{scores['iou'].mean():.4f}"]
    assert said[3:] == [f"all pixels as one image: Dice {16 / 29:.4f}, IoU {8 / 21:.4f}"]
