from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histofold.evaluation.crossfit import TELLING_GROUPS, best_column, cross_fit, first_good, interval, interval_text


def test_a_folds_own_scores_do_not_choose_its_setting() -> None:
    # Fold 0 alone likes column 0; the others like column 1.
    table = np.array([[1.0, 0.0], [1.0, 0.0], [0.4, 0.5], [0.4, 0.5], [0.4, 0.5]])
    folds = np.array([0, 0, 1, 1, 2])
    choice = cross_fit(table, folds)
    assert choice.per_fold == {0: 1, 1: 0, 2: 0}
    assert choice.scores.tolist() == [0.0, 0.0, 0.4, 0.4, 0.4]
    assert choice.best == 0
    assert choice.optimistic > choice.cross_fitted


@given(st.integers(0, 100), st.integers(2, 4), st.integers(2, 8))
def test_shuffling_a_folds_truth_does_not_change_its_choice(seed: int, n_folds: int, settings: int) -> None:
    random = np.random.default_rng(seed)
    folds = np.arange(24) % n_folds
    table = random.random((24, settings))
    before = cross_fit(table, folds).per_fold
    for fold in range(n_folds):
        other = table.copy()
        other[folds == fold] = random.random((int((folds == fold).sum()), settings))
        assert cross_fit(other, folds).per_fold[fold] == before[fold]


def test_a_plateau_is_taken_in_its_middle() -> None:
    assert best_column(np.array([[0.1, 0.7, 0.7, 0.7, 0.2]])) == 2


def test_few_groups_make_no_difference_clear() -> None:
    worse, better = np.full(40, 0.5), np.full(40, 0.6)
    for groups, expected in ((TELLING_GROUPS - 1, 0), (TELLING_GROUPS, 1)):
        assert first_good([worse, better], (np.arange(40) % groups).astype(str)) == expected


def test_the_interval_draws_groups_and_is_wider_for_it() -> None:
    random = np.random.default_rng(0)
    scores = np.repeat(random.random(10), 10)
    alone = interval(scores, np.arange(100).astype(str))
    grouped = interval(scores, np.repeat(np.arange(10), 10).astype(str))
    assert alone is not None
    assert grouped is not None
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])
    assert grouped[0] < scores.mean() < grouped[1]
    assert interval(scores, np.arange(100).astype(str)) == alone


@pytest.mark.parametrize("groups", [1, 2])
def test_one_or_two_groups_have_no_interval(groups: int) -> None:
    scores = np.linspace(0, 1, 50)
    assert interval(scores, (np.arange(50) % groups).astype(str)) is None
    assert interval(scores, (np.arange(50) % 3).astype(str)) is not None


def test_an_interval_in_words() -> None:
    assert interval_text((0.25, 0.5)) == "0.2500 to 0.5000"
    assert interval_text([0.25, 0.5], ", ") == "0.2500, 0.5000"
    assert interval_text(None) == "too few groups for an interval"
