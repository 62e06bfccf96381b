"""The second level on drawn nuclei: candidates, features, the best set without overlap, learned without a leak."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from histofold import instances, metrics
from histofold.errors import DataError
from histofold.evaluation.secondlevel import Learner, cross_fitted, learn, preferred, truth_iou
from histofold.evaluation.secondrun import candidates_of
from histofold.instances.candidates import Candidates, best_iou, find
from histofold.instances.secondlevel import keep

LEVELS = (0.3, 0.65)


def drawn(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int32], dict[str, NDArray[np.float32]]]:
    """Dim and bright nuclei: the right outline of dim ones is at a low threshold, that of bright ones at a high one."""
    random = np.random.default_rng(seed)
    labels = np.zeros((96, 96), np.int32)
    image = np.full((96, 96, 3), 20, np.uint8)
    foreground = np.zeros((96, 96), np.float32)
    y, x = np.mgrid[:96, :96]
    for label in range(1, 10):
        row, column = divmod(label - 1, 3)
        centre = (16 + 32 * row + random.uniform(-2, 2), 16 + 32 * column + random.uniform(-2, 2))
        away, radius, bright = np.hypot(y - centre[0], x - centre[1]), random.uniform(6, 8), random.random() < 0.5
        labels[away <= radius] = label
        image[away <= radius] = 200 if bright else 90
        level = LEVELS[1] + 0.01 if bright else LEVELS[0] + 0.01
        foreground = np.maximum(foreground, np.clip(level + 0.07 * (radius - away), 0, 0.95)).astype(np.float32)
    noise = random.normal(0, 0.005, foreground.shape)
    return image, labels, {"foreground": np.clip(foreground + noise, 0, 1).astype(np.float32)}


DECODERS = tuple(instances.build("threshold", threshold=level) for level in LEVELS)


def learned(count: int = 12) -> tuple[list[Any], list[Any]]:
    samples = [drawn(seed) for seed in range(count)]
    found = [find(image, bands, DECODERS) for image, _, bands in samples]
    pairs = [(one, truth_iou(one, labels)) for one, (_, labels, _) in zip(found, samples, strict=True)]
    return pairs, [labels for _, labels, _ in samples]


def scored(found: list[Any], folds: NDArray[np.int64], truths: list[Any]) -> NDArray[np.float64]:
    labels = cross_fitted(learner(found, folds, truths))
    return np.array([metrics.dsb(truth, own) for truth, own in zip(truths, labels.values(), strict=True)])


def learner(found: list[Any], folds: NDArray[np.int64], truths: list[Any]) -> Learner:
    return Learner(found, folds, lambda at, own: metrics.dsb(truths[at], own))


def test_candidates_come_from_every_setting_once() -> None:
    image, labels, bands = drawn(0)
    one = find(image, bands, DECODERS[:1])
    both = find(image, bands, DECODERS)
    assert len(find(image, bands, DECODERS[:1] * 3)) == len(one), "copies are left out"
    assert len(both) > len(one)
    assert truth_iou(both, labels).max() > 0.9
    for box, mask in zip(both.boxes, both.masks, strict=True):
        assert mask.shape == (box[2] - box[0], box[3] - box[1])
    doubt = {**bands, "spread": np.flipud(bands["foreground"]).astype(np.float32)}
    assert find(image, doubt, DECODERS).features.shape == (len(both), both.features.shape[1] + 3), "it is measured, too"


def test_the_iou_of_a_candidate_is_that_of_the_matcher() -> None:
    image, labels, bands = drawn(1)
    found = find(image, bands, DECODERS)
    for at, (box, mask) in enumerate(zip(found.boxes, found.masks, strict=True)):
        alone = np.zeros_like(labels)
        alone[box[0] : box[2], box[1] : box[3]] = mask
        table = metrics.contingency(labels, alone)
        assert truth_iou(found, labels)[at] == pytest.approx(table.iou.max(initial=0.0))


def test_the_best_are_kept_and_never_overlap() -> None:
    mask = np.ones((10, 10), bool)
    boxes = np.array([[0, 0, 10, 10], [5, 5, 15, 15], [10, 0, 20, 10]])
    found = Candidates((20, 20), boxes, (mask, mask, mask), np.zeros((3, 1)))
    labels, values = keep(found, np.array([0.6, 0.9, 0.5]), 0.1)
    assert values.tolist() == [0.9]
    assert labels.max() == 1, "the best one takes a quarter of both others"
    labels, values = keep(found, np.array([0.9, 0.6, 0.5]), 0.1)
    assert values.tolist() == [0.9, 0.5]
    assert np.array_equal(keep(found, np.array([0.9, 0.6, 0.5]), 0.6)[0], np.where(labels <= 1, labels, 0))
    assert [int((labels == label).sum()) for label in (1, 2)] == [100, 100]
    assert not keep(found, np.array([0.9, 0.6, 0.5]), 0.95)[0].any()


def test_it_beats_each_threshold_on_nuclei_that_need_two() -> None:
    found, truths = learned()
    folds = np.arange(len(found)) % 3
    scores = scored(found, folds, truths)
    for decoder in DECODERS:
        alone = [metrics.dsb(truths[seed], decoder(drawn(seed)[2])) for seed in range(len(found))]
        assert scores.mean() > np.mean(alone) + 0.1


def test_a_folds_truth_does_not_touch_its_own_choice() -> None:
    found, truths = learned(6)
    folds = np.arange(6) % 3
    before = scored(found, folds, truths)
    own = folds == 1
    wrong = [(one, 1 - iou) if own[at] else (one, iou) for at, (one, iou) in enumerate(found)]
    after = scored(wrong, folds, truths)
    assert np.array_equal(before[own], after[own])
    assert not np.array_equal(before[~own], after[~own])


def test_without_a_fold_nothing_is_learned_of_it() -> None:
    found, truths = learned(8)
    folds = np.arange(8) % 4
    before = cross_fitted(learner(found, folds, truths), frozenset({0, 1, 2}))
    assert list(before) == [at for at in range(8) if folds[at] != 3], "it gets no labels either"
    wrong = [(one, 1 - iou) if folds[at] == 3 else (one, iou) for at, (one, iou) in enumerate(found)]
    empty = [np.zeros_like(truth) if folds[at] == 3 else truth for at, truth in enumerate(truths)]
    after = cross_fitted(learner(wrong, folds, empty), frozenset({0, 1, 2}))
    for at, labels in before.items():
        np.testing.assert_array_equal(labels, after[at])


@pytest.mark.parametrize("fold", range(3))
def test_whether_a_fold_gets_it_owes_nothing_to_its_truth(fold: int) -> None:
    """The others' scores alone decide, and all of them are of trees and settings that never saw the fold."""
    found, truths = learned(6)
    folds = np.arange(6) % 3
    own = folds == fold
    known = learner(found, folds, truths)
    asked: list[NDArray[np.bool_]] = []

    def alone(level: float) -> Any:
        def scores(among: NDArray[np.bool_]) -> NDArray[np.float64]:
            asked.append(among)
            return np.where(among, level, np.nan)

        return scores

    assert preferred(known, alone(0.0), known.score).all()
    assert not preferred(known, alone(1.0), known.score).any()
    assert [among.tolist() for among in asked[:3]] == [(folds != one).tolist() for one in range(3)]
    middle = float(np.mean([known.score(at, labels) for at, labels in cross_fitted(known).items()]))
    before = preferred(known, alone(middle), known.score)
    wrong = [(one, 1 - iou) if own[at] else (one, iou) for at, (one, iou) in enumerate(found)]
    blind = Learner(wrong, folds, lambda at, labels: 0.0 if own[at] else known.score(at, labels))
    assert preferred(blind, alone(middle), blind.score)[own].tolist() == before[own].tolist()


def test_two_folds_cannot_prefer_it_for_each_other() -> None:
    found, truths = learned(4)
    known = learner(found, np.arange(4) % 2, truths)
    assert not preferred(known, lambda among: np.zeros(4), known.score).any()


def test_an_image_without_a_candidate_is_empty() -> None:
    blank = np.zeros((40, 40), np.float32)
    found = find(np.zeros((40, 40, 3), np.uint8), {"foreground": blank}, DECODERS)
    assert len(found) == 0
    assert not keep(found, np.zeros(0), 0.1)[0].any()


def test_candidates_vary_what_the_decoder_has() -> None:
    assert len(candidates_of(instances.build("watershed"))) == 7
    assert candidates_of(instances.build("watershed", threshold=0.2))[0].options()["threshold"] == 0.2, "the user's own"
    assert len(candidates_of(instances.build("threshold", min_size=7, threshold=0.6))) == 3, "which may be among them"
    assert all(one.options()["min_size"] == 7 for one in candidates_of(instances.build("threshold", min_size=7)))


def test_agreement_is_that_of_the_matcher() -> None:
    _, labels, bands = drawn(2)
    other = DECODERS[0](bands)
    table = metrics.contingency(labels, other)
    best = best_iou(labels, other)
    assert best.shape == (labels.max() + 1,)
    for row, label in enumerate(table.truth_labels):
        assert best[label] == pytest.approx(table.iou[table.rows == row].max(initial=0.0))
    assert not best_iou(labels, np.zeros_like(labels)).any()


def test_what_is_left_of_a_candidate_is_one_piece() -> None:
    block, bar = np.ones((10, 20), bool), np.ones((10, 1), bool)
    found = Candidates((10, 20), np.array([[0, 0, 10, 20], [0, 15, 10, 16]]), (block, bar), np.zeros((2, 1)))
    labels, _ = keep(found, np.array([0.5, 0.9]), 0.1)
    assert [int((labels == label).sum()) for label in (1, 2)] == [10, 150]


def test_without_candidates_there_is_nothing_to_learn() -> None:
    blank = find(np.zeros((40, 40, 3), np.uint8), {"foreground": np.zeros((40, 40), np.float32)}, DECODERS)
    with pytest.raises(DataError, match="second_level=off"):
        learn([(blank, np.zeros(0))])
