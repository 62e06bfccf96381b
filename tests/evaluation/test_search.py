from __future__ import annotations

import numpy as np
import pytest

from histofold.evaluation.search import STRATEGIES, Objective, Weights, normalised, search, simplest, worth

FOLDS = np.repeat([0, 1, 2], 12)
GROUPS = np.arange(36).astype(str)


def objective(targets: np.ndarray, calls: list[Weights] | None = None) -> Objective:
    """Each sample (row of `targets`) is best served by weights of its own; the score falls with the distance."""

    def score(candidates: list[Weights]) -> list[np.ndarray]:
        if calls is not None:
            calls.extend(candidates)
        return [
            np.stack([1 - np.abs(targets - np.array(weights)).sum(axis=1) * shade for shade in (1.0, 0.9)], axis=1)
            for weights in candidates
        ]

    return Objective(score)


def around(centre: tuple[float, ...], seed: int = 0) -> np.ndarray:
    return np.array(centre) + np.random.default_rng(seed).normal(0, 0.02, (36, len(centre)))


@pytest.mark.parametrize("strategy", ["greedy", "optimise"])
def test_a_search_finds_the_weights_that_the_samples_want(strategy: str) -> None:
    found = search(strategy, objective(around((0.75, 0.25, 0.0))), FOLDS, 3)
    assert np.allclose(found.weights, (0.75, 0.25, 0.0), atol=0.11)
    assert found.cross_fitted > search("equal", objective(around((0.75, 0.25, 0.0))), FOLDS, 3).cross_fitted
    assert found.column == 1
    assert found.optimistic >= found.cross_fitted - 1e-9


@pytest.mark.parametrize("strategy", list(STRATEGIES))
@pytest.mark.parametrize("fold", [0, 1, 2])
def test_a_folds_truth_never_reaches_its_own_choice(strategy: str, fold: int) -> None:
    truth = around((0.6, 0.4, 0.0))
    shuffled = truth.copy()
    shuffled[fold == FOLDS] = np.random.default_rng(5).random((12, 3))
    before = search(strategy, objective(truth), FOLDS, 3).per_fold[fold]
    assert search(strategy, objective(shuffled), FOLDS, 3).per_fold[fold] == before


def test_every_mixture_is_scored_once() -> None:
    calls: list[Weights] = []
    shared = objective(around((0.5, 0.3, 0.2)), calls)
    for strategy in STRATEGIES:
        search(strategy, shared, FOLDS, 3)
    assert len(calls) == len(set(calls))


def test_within_the_noise_the_simplest_wins() -> None:
    targets = around((0.34, 0.33, 0.33))
    shared = objective(targets)
    assert simplest([search(name, shared, FOLDS, 3) for name in STRATEGIES], GROUPS).strategy == "equal"
    clear = objective(around((1.0, 0.0, 0.0)))
    assert simplest([search(name, clear, FOLDS, 3) for name in STRATEGIES], GROUPS).strategy != "equal"


def test_worth_is_what_is_lost_without_a_member() -> None:
    added = worth(objective(around((0.9, 0.1, 0.0))), (0.9, 0.1, 0.0), 1)
    assert added[0] > added[1] > 0
    # The third has no weight: with an equal share of it the ensemble would be worse.
    assert added[2] < 0


def test_the_only_member_adds_its_lead_over_the_best_of_the_others() -> None:
    shared = objective(around((0.9, 0.1, 0.0)))
    added = worth(shared, (1.0, 0.0, 0.0), 1)
    alone = [shared.tables([tuple(np.eye(3)[index])])[0][:, 1].mean() for index in range(3)]
    assert added[0] == pytest.approx(alone[0] - max(alone[1:]))
    assert set(added) == {0, 1, 2}
    assert worth(objective(around((1.0,))), (1.0,), 1) == {}


def test_weights_sum_to_one() -> None:
    assert normalised([1, 1, 2]) == (0.25, 0.25, 0.5)
