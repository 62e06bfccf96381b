"""Scores at IoU thresholds: by hand, against a plain loop, and against StarDist's matching."""

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray

from histofold import metrics

Labels = NDArray[np.int32]


def _bar(length: int, start: int = 0) -> Labels:
    out = np.zeros((1, 100), np.int32)
    out[0, start : start + length] = 1
    return out


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        (20, 1.0),
        (19, 0.9),  # IoU .95 exactly: not greater than .95
        (13, 0.3),  # .65 exactly, which no binary fraction is: .50, .55, .60
        (11, 0.1),  # .55 exactly
        (10, 0.0),  # .50 exactly
    ],
)
def test_dsb_counts_only_what_is_greater_than_the_threshold(overlap: int, expected: float) -> None:
    assert metrics.dsb(_bar(20), _bar(overlap)) == pytest.approx(expected)


def test_dsb_by_hand() -> None:
    truth, prediction = np.zeros((2, 4, 30), np.int32)
    truth[0, :10], prediction[0, :8] = 1, 1  # IoU .8: hit at .50 … .75
    truth[1, :10], prediction[1, :10] = 2, 2  # IoU 1
    truth[2, :10] = 3  # missed
    prediction[3, :10] = 4  # invented
    # 2 hits, 1 missed, 1 invented at six thresholds; 1 hit, 2 and 2 at four.
    assert metrics.dsb(truth, prediction) == pytest.approx((6 * 2 / 4 + 4 * 1 / 5) / 10)


def _dsb_loop(truth: Labels, prediction: Labels) -> float:
    """The evaluation page's text as a loop over all pairs and thresholds."""
    objects = [[image == value for value in np.unique(image) if value] for image in (truth, prediction)]
    iou = np.array([[(t & p).sum() / (t | p).sum() for p in objects[1]] for t in objects[0]])
    scores = []
    for step in range(10, 20):
        hits = int((iou.reshape(len(objects[0]), len(objects[1])) > step / 20 + 1e-12).sum())
        scores.append(hits / (len(objects[0]) + len(objects[1]) - hits))
    return float(np.mean(scores))


def test_dsb_agrees_with_a_loop_over_pairs(pairs: list[tuple[Labels, Labels]]) -> None:
    for truth, prediction in pairs[1:]:
        assert metrics.dsb(truth, prediction) == pytest.approx(_dsb_loop(truth, prediction))


def test_empty_images() -> None:
    empty, full = np.zeros((3, 3), np.int32), np.ones((3, 3), np.int32)

    def values(truth: NDArray[np.int32], prediction: NDArray[np.int32]) -> set[float]:
        found = metrics.instance_scores(truth, prediction)
        return {found[name] for name in metrics.SCORES}

    assert values(empty, empty) == {1.0}
    assert values(full, empty) == {0.0}
    assert values(empty, full) == {0.0}
    assert values(full, full) == {1.0}


def test_objects_are_counted() -> None:
    truth, prediction = np.zeros((8, 8), np.int32), np.zeros((8, 8), np.int32)
    truth[:2, :2], truth[4:, 4:], truth[:2, 6:] = 1, 2, 3
    prediction[:2, :2], prediction[4:, :2] = 5, 6
    counts = metrics.instance_scores(truth, prediction)
    assert [counts[name] for name in ("found", "missed", "false")] == [1, 2, 1]


def test_match_is_one_to_one_where_two_share_an_object_equally() -> None:
    truth = np.array([[1, 1, 2, 2]])
    half = metrics.match(metrics.contingency(truth, np.array([[1, 1, 1, 1]])), 0.5)
    assert (half.tp, half.fp, half.fn) == (1, 0, 1)
    assert half.precision == 1
    assert half.recall == 0.5
    assert half.f1 == pytest.approx(2 / 3)
    assert half.f2 == pytest.approx(5 / 9), "5 TP of 5 TP + FP + 4 FN"
    assert half.accuracy == 0.5
    assert half.mean_matched_score == 0.5
    assert half.panoptic_quality == pytest.approx(0.5 / 1.5)


def test_match_prefers_more_matches_to_a_better_one() -> None:
    # The first prediction fits the first object best, but only it can match the second one.
    truth = np.array([[1] * 10 + [2] * 10])
    prediction = np.array([[1] * 3 + [2] * 11 + [0] * 6])
    table = metrics.contingency(truth, prediction)
    assert metrics.match(table, 0.2).tp == 2


THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)


def test_match_agrees_with_stardist(pairs: list[tuple[Labels, Labels]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports are its own affair
        stardist = pytest.importorskip("stardist.matching")
    for truth, prediction in pairs:
        table = metrics.contingency(truth, prediction)
        for threshold in THRESHOLDS:
            theirs, ours = stardist.matching(truth, prediction, thresh=threshold), metrics.match(table, threshold)
            assert (ours.tp, ours.fp, ours.fn) == (theirs.tp, theirs.fp, theirs.fn)
            for name in (
                "precision", "recall", "accuracy", "f1", "mean_true_score", "mean_matched_score", "panoptic_quality",
            ):  # fmt: skip
                assert getattr(ours, name) == pytest.approx(getattr(theirs, name)), (name, threshold)


def test_pooled_matches_agree_with_stardist(pairs: list[tuple[Labels, Labels]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stardist = pytest.importorskip("stardist.matching")
    truths, predictions = zip(*pairs, strict=True)
    pooled = metrics.pool([metrics.contingency(*pair) for pair in pairs], THRESHOLDS)
    for ours in pooled:
        theirs = stardist.matching_dataset(truths, predictions, thresh=ours.threshold, show_progress=False)
        assert (ours.tp, ours.fp, ours.fn) == (theirs.tp, theirs.fp, theirs.fn)
        assert ours.n_truth == theirs.n_true
        assert ours.n_prediction == theirs.n_pred
        for name in ("precision", "recall", "accuracy", "f1", "panoptic_quality", "mean_true_score"):
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name))


def test_matches_at_different_thresholds_cannot_be_pooled(pairs: list[tuple[Labels, Labels]]) -> None:
    table = metrics.contingency(*pairs[3])
    with pytest.raises(ValueError, match=r"0\.5 and 0\.7"):
        metrics.match(table, 0.5) + metrics.match(table, 0.7)
