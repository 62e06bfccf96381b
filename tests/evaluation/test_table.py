"""What `evaluate` prints below its table: pixels and objects of all images together, distances as means."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from histofold import metrics
from histofold.evaluation.scoring import final_scores
from histofold.evaluation.table import cv_table
from histofold.inference.ensemble import Ensemble

SCORE = {"interval": [0.1, 0.9], "cross_fitted": 0.5, "optimistic": 0.6}


def _ensemble() -> Ensemble:
    return Ensemble(
        competition="drawn", name="one", metric="dsb", members=(), folds=(0, 1), partial=False, bands=(),
        checkpoints=(), threshold=None, instances={"name": "threshold"}, strata={}, size=0.0, score=SCORE,
        threshold_curve=(), extra={},
    )  # fmt: skip


def _squares(*corners: tuple[int, int]) -> np.ndarray:
    labels = np.zeros((40, 40), np.int32)
    for number, (y, x) in enumerate(corners, 1):
        labels[y : y + 8, x : x + 8] = number
    return labels


def test_pixels_and_objects_are_pooled_and_distances_are_means() -> None:
    truths = [_squares((0, 0), (20, 20)), _squares((0, 0))]
    found = [_squares((0, 0), (20, 22)), _squares((30, 30))]
    rows = [final_scores(*pair, "dsb") for pair in zip(truths, found, strict=True)]
    scores = pd.DataFrame(rows).assign(fold=[0, 1], stratum="drawn")
    text = cv_table(_ensemble(), scores)
    pooled = metrics.pooled(zip(truths, found, strict=True))
    both = 64 + 48
    assert pooled["dice"] == pytest.approx(2 * both / (192 + 192))
    assert f"all pixels as one image: Dice {pooled['dice']:.4f}, IoU {pooled['iou']:.4f}; HD95 " in text
    assert "2 found, 1 missed, 1 false; over all of them precision 0.6667, recall 0.6667, F1 0.6667" in text
    assert f"HD95 {np.mean([row['hd95'] for row in rows]):.1f} px" in text
    assert f"object Hausdorff {scores['object_hausdorff'].mean():.1f} px" in text
    # Masks have neither objects nor distances, and tables of earlier versions have no pixels.
    plain = cv_table(replace(_ensemble(), metric="dice"), scores[["score", "dice", "iou", "fold", "stratum"]])
    assert "pixels" not in plain
    assert "objects" not in plain


def test_mask_scores_count_the_pixels_that_the_threshold_gives() -> None:
    from histofold.evaluation.scoring import mask_scores

    rng = np.random.default_rng(0)
    values, truth = rng.integers(0, 256, (20, 30), dtype=np.uint8), rng.random((20, 30)) < 0.3
    scores = mask_scores(metrics.histogram(values, truth), 100, "iou")
    counts = [int(scores[name]) for name in metrics.PIXELS]
    assert counts == [int(((values >= 100) & truth).sum()), int(truth.sum()), int((values >= 100).sum())]
    assert scores["score"] == scores["iou"] < scores["dice"]
    assert metrics.pooled_counts(*counts) == pytest.approx({"dice": scores["dice"], "iou": scores["iou"]})
