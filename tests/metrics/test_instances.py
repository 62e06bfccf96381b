"""PQ, the AJI family, the GlaS and FullNet rules: by hand and against loops over pairs of masks."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from histofold import metrics
from histofold.errors import ConfigError
from histofold.metrics import instances as scores
from histofold.metrics.hausdorff import matched_hausdorff

Labels = NDArray[np.int32]
Pairs = list[tuple[Labels, Labels]]


def _masks(labels: Labels) -> list[NDArray[np.bool_]]:
    return [labels == value for value in np.unique(labels) if value]


def _iou(truth: Labels, prediction: Labels) -> NDArray[np.float64]:
    first, second = _masks(truth), _masks(prediction)
    return np.array([[(t & p).sum() / (t | p).sum() for p in second] for t in first]).reshape(len(first), len(second))


def _row(*lengths: tuple[int, int, int]) -> Labels:
    """One row of 60 pixels with (label, start, stop) runs."""
    out = np.zeros((1, 60), np.int32)
    for label, start, stop in lengths:
        out[0, start:stop] = label
    return out


def test_panoptic_quality_by_hand() -> None:
    truth = _row((1, 0, 10), (2, 20, 30), (3, 40, 50))
    prediction = _row((1, 0, 8), (2, 25, 35), (3, 50, 55))
    # One match of IoU .8; the second pair has IoU 1/3: DQ = 2·1 / (3 + 3), SQ = .8.
    assert scores.panoptic(metrics.contingency(truth, prediction)) == pytest.approx((0.8 / 3, 1 / 3, 0.8))
    half = metrics.contingency(_row((1, 0, 10)), _row((1, 0, 5)))
    assert scores.panoptic(half)[1] == 0, "an IoU of exactly .5 is no match"


def test_the_three_aji_differ_where_two_objects_choose_one_prediction() -> None:
    truth = _row((1, 0, 10), (2, 10, 20))
    prediction = _row((1, 4, 20), (2, 0, 4))
    table = metrics.contingency(truth, prediction)
    # IoU of truth 1: 6/20 and 4/10; of truth 2: 10/16 and 0.
    assert scores.aji(table) == pytest.approx((4 + 10) / (10 + 16))
    merged = metrics.contingency(truth, _row((1, 0, 20)))
    # Kumar: both take the one prediction: (10 + 10) / (20 + 20). One to one: 10 / (20 + 10).
    assert scores.aji(merged) == pytest.approx(20 / 40)
    assert scores.aji_one_to_one(merged) == scores.aji_plus(merged) == pytest.approx(10 / 30)


def test_greedy_aji_depends_on_order_and_aji_plus_does_not() -> None:
    truth = _row((1, 0, 10), (2, 10, 22))
    prediction = _row((1, 0, 4), (2, 4, 20))
    # IoU of truth 1: 4/10 and 6/20; truth 2: 0 and 10/18. Label order is kind here; reversed labels, too.
    plus = scores.aji_plus(metrics.contingency(truth, prediction))
    assert plus == pytest.approx((4 + 10) / (10 + 18))
    # A first object that prefers the second's only chance: IoU 5/13 against 4/10 …
    truth = _row((1, 0, 10), (2, 10, 12))
    prediction = _row((1, 0, 4), (2, 4, 12))
    table = metrics.contingency(truth, prediction)
    assert scores.aji_one_to_one(table) == pytest.approx(6 / (12 + 2 + 4))  # 1 takes 2 (6/12), 2 finds nothing
    assert scores.aji_plus(table) == pytest.approx((4 + 2) / (10 + 8))  # 4/10 + 2/8 > 6/12


def _kumar_loop(truth: Labels, prediction: Labels) -> float:
    first, second = _masks(truth), _masks(prediction)
    used, above, below = set(), 0, 0
    for t in first:
        iou = [(t & p).sum() / (t | p).sum() for p in second]
        best = int(np.argmax(iou)) if iou and max(iou) > 0 else None
        if best is None:
            below += t.sum()
            continue
        used.add(best)
        above += (t & second[best]).sum()
        below += (t | second[best]).sum()
    return above / (below + sum(p.sum() for at, p in enumerate(second) if at not in used))


def _plus_loop(truth: Labels, prediction: Labels) -> float:
    first, second, iou = _masks(truth), _masks(prediction), _iou(truth, prediction)
    chosen = [(t, p) for t, p in zip(*linear_sum_assignment(-iou), strict=True) if iou[t, p] > 0]
    above = sum((first[t] & second[p]).sum() for t, p in chosen)
    below = sum((first[t] | second[p]).sum() for t, p in chosen)
    below += sum(mask.sum() for at, mask in enumerate(first) if at not in {t for t, _ in chosen})
    below += sum(mask.sum() for at, mask in enumerate(second) if at not in {p for _, p in chosen})
    return above / below


def _object_dice_loop(truth: Labels, prediction: Labels) -> float:
    def side(own: Labels, other: Labels) -> float:
        total = 0.0
        for mask in _masks(own):
            overlaps = [((mask & o).sum(), o) for o in _masks(other)]
            most, best = max(overlaps, key=lambda pair: pair[0], default=(0, None))
            if best is not None and most:
                total += mask.sum() * 2 * most / (mask.sum() + best.sum())
        return total / (own > 0).sum()

    return (side(truth, prediction) + side(prediction, truth)) / 2


def _glas_f1_loop(truth: Labels, prediction: Labels) -> float:
    first = _masks(truth)
    found, hits = set(), 0
    for p in _masks(prediction):
        overlaps = [(t & p).sum() for t in first]
        best = int(np.argmax(overlaps))
        if overlaps[best] and overlaps[best] >= 0.5 * first[best].sum():
            hits += 1
            found.add(best)
    return 2 * hits / (hits + len(_masks(prediction)) + len(first) - len(found)) if hits else 0.0


def test_scores_agree_with_loops_over_masks(pairs: Pairs) -> None:
    for truth, prediction in pairs[1:]:
        table = metrics.contingency(truth, prediction)
        iou = _iou(truth, prediction)
        hits = iou[iou > 0.5]
        assert scores.panoptic(table)[0] == pytest.approx(hits.sum() * 2 / sum(iou.shape))
        assert scores.aji(table) == pytest.approx(_kumar_loop(truth, prediction))
        assert scores.aji_plus(table) == pytest.approx(_plus_loop(truth, prediction))
        assert scores.object_dice(table) == pytest.approx(_object_dice_loop(truth, prediction))
        assert scores.object_f1(table) == pytest.approx(_glas_f1_loop(truth, prediction))
        assert scores.pixel_scores(table) == pytest.approx(
            (metrics.dice(truth, prediction), metrics.iou(truth, prediction))
        )


def test_glas_rule_by_hand() -> None:
    truth = _row((1, 0, 10), (2, 20, 30))
    # Covers half of object 1 exactly: a hit. Covers 4 of 10 of object 2: none. Touches nothing: none.
    prediction = _row((1, 5, 15), (2, 20, 24), (3, 40, 44))
    matching = scores.glas_matching(metrics.contingency(truth, prediction))
    assert (matching.tp, matching.fp, matching.fn) == (1, 2, 1)
    assert scores.object_f1(metrics.contingency(truth, prediction)) == pytest.approx(2 / 5)
    # Truth's side: (10·.5 + 10·2·4/14) / 20; predictions' side: (10·.5 + 4·8/14 + 4·0) / 18.
    expected = ((10 * 0.5 + 10 * 8 / 14) / 20 + (10 * 0.5 + 4 * 8 / 14) / 18) / 2
    assert scores.object_dice(metrics.contingency(truth, prediction)) == pytest.approx(expected)


def test_fullnet_toy_figures_of_a_strip(toy_truth: Labels) -> None:
    strip = np.zeros_like(toy_truth)
    strip[2:8, 2] = 1
    table = metrics.contingency(toy_truth, strip)
    assert scores.fullnet_scores(table) == {
        "recall": 0.5,
        "precision": 1.0,
        "f1": pytest.approx(0.667, abs=5e-4),
        "dice": pytest.approx(0.286, abs=5e-4),
        "iou": pytest.approx(0.167, abs=5e-4),
    }
    assert scores.aji_one_to_one(table) == pytest.approx(0.083, abs=5e-4)
    assert matched_hausdorff(table, scores.greedy_pairs(table), toy_truth, strip) == 5


def test_fullnet_toy_figures_of_one_object_over_both(toy_truth: Labels) -> None:
    over = np.zeros_like(toy_truth)
    over[2:18, 2:18] = 1
    table = metrics.contingency(toy_truth, over)
    found = scores.fullnet_scores(table)
    assert found["f1"] == pytest.approx(0.667, abs=5e-4)
    assert found["dice"] == pytest.approx(0.247, abs=5e-4)
    assert scores.aji_one_to_one(table) == pytest.approx(0.123, abs=5e-4)
    assert matched_hausdorff(table, scores.greedy_pairs(table), toy_truth, over) == pytest.approx(14.142, abs=5e-4)


def test_fullnet_scores_without_a_match_are_zero() -> None:
    table = metrics.contingency(_row((1, 0, 5)), _row((1, 10, 15)))
    assert set(scores.fullnet_scores(table).values()) == {0.0}


def test_one_name_gives_the_score_of_the_whole_set(pairs: Pairs) -> None:
    table = metrics.contingency(*pairs[6])
    every = metrics.scores_of(table)
    everything = {name: every[name] for name in metrics.SCORES}
    assert {name: metrics.named_score(name)(table) for name in metrics.SCORES} == everything
    assert all(0 <= value <= 1 for value in everything.values())
    with pytest.raises(ConfigError, match="metric=map: unknown; expected one of dsb"):
        metrics.named_score("map")


def test_label_numbers_do_not_matter_but_to_the_greedy_aji(pairs: Pairs) -> None:
    rng = np.random.default_rng(0)
    for truth, prediction in pairs:
        table = np.concatenate([[0], rng.permutation(200) + 1])
        before = metrics.instance_scores(truth, prediction)
        after = metrics.instance_scores(table[truth], table[prediction])
        for name in set(before) - {"aji_one_to_one", "object_dice", "object_f1"}:
            assert after[name] == pytest.approx(before[name]), name
