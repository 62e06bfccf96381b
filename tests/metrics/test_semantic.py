"""Pixel metrics against hand-computed values and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

from histofold import metrics
from histofold.errors import DataError


def test_dice_and_iou_by_hand() -> None:
    truth = np.array([[1, 1, 0], [0, 0, 0]])
    prediction = np.array([[0, 5, 5], [5, 0, 0]])
    assert metrics.dice(truth, prediction) == pytest.approx(2 / 5)
    assert metrics.iou(truth, prediction) == pytest.approx(1 / 4)


def test_empty_masks_agree_and_one_empty_mask_scores_zero() -> None:
    empty, full = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    assert metrics.dice(empty, empty) == metrics.iou(empty, empty) == 1
    assert metrics.dice(empty, full) == metrics.iou(full, empty) == 0
    assert metrics.dice(full, full) == metrics.iou(full, full) == 1


def test_dice_and_iou_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        truth, prediction = rng.random((2, 40, 50)) < share
        assert metrics.dice(truth, prediction) == pytest.approx(f1_score(truth.ravel(), prediction.ravel()))
        assert metrics.iou(truth, prediction) == pytest.approx(jaccard_score(truth.ravel(), prediction.ravel()))


def test_pooled_is_the_score_of_the_images_laid_side_by_side() -> None:
    rng = np.random.default_rng(1)
    truth, prediction = rng.random((2, 20, 30)) < 0.4
    halves = [(truth[:, :7], prediction[:, :7]), (truth[:, 7:], prediction[:, 7:])]
    assert metrics.pooled(halves) == {
        "dice": pytest.approx(metrics.dice(truth, prediction)),
        "iou": pytest.approx(metrics.iou(truth, prediction)),
    }
    assert metrics.pooled([]) == {"dice": 1.0, "iou": 1.0}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_curves_are_the_scores_of_every_threshold(share: float) -> None:
    rng = np.random.default_rng(2)
    values = rng.integers(0, 256, (30, 40), dtype=np.uint8)
    truth = rng.random((30, 40)) < share
    hist = metrics.histogram(values, truth)
    assert hist.shape == (2, 256)
    assert hist.dtype == np.int64
    assert hist.sum() == values.size
    dice, iou = metrics.dice_curve(hist), metrics.iou_curve(hist)
    for threshold in range(257):
        assert dice[threshold] == pytest.approx(metrics.dice(truth, values >= threshold))
        assert iou[threshold] == pytest.approx(metrics.iou(truth, values >= threshold))


def test_histograms_of_bands_add_up() -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 256, (30, 40), dtype=np.uint8)
    truth = rng.integers(0, 3, (30, 40)).astype(np.int32)
    parts = sum(metrics.histogram(values[y : y + 7], truth[y : y + 7]) for y in range(0, 30, 7))
    assert np.array_equal(parts, metrics.histogram(values, truth > 0))


def test_what_does_not_fit_is_refused() -> None:
    small, large = np.zeros((3, 3), np.uint8), np.zeros((3, 4), np.uint8)
    with pytest.raises(DataError, match=r"\(3, 3\).*\(3, 4\)"):
        metrics.dice(small, large)
    with pytest.raises(DataError, match="same size"):
        metrics.histogram(small, large)
    with pytest.raises(DataError, match="uint8"):
        metrics.histogram(small.astype(np.float32), small)
    with pytest.raises(DataError, match=r"\(2, 256\)"):
        metrics.dice_curve(np.zeros((2, 255), np.int64))
