from __future__ import annotations

import numpy as np
import pytest

from histofold.evaluation.search import (
    SCREENS,
    STRATEGIES,
    Objective,
    Weights,
    normalised,
    search,
    worth,
)

FOLDS = np.repeat([0, 1, 2], 12)
GROUPS = np.arange(36).astype(str)


def objective(targets: np.ndarray, calls: list[tuple[Weights, int]] | None = None) -> Objective:
    """Each sample (row of `targets`) is best served by weights of its own; the score falls with the distance.

    `calls` collects the vectors that are scored, each with the index of a sample.
    """

    def score(candidates: list[Weights], rows: np.ndarray) -> list[np.ndarray]:
        if calls is not None:
            calls.extend((weights, int(row)) for weights in candidates for row in rows)
        away = [((targets[rows] - np.array(weights)) ** 2).sum(axis=1) for weights in candidates]
        return [np.stack([1 - distance * shade for shade in (1.0, 0.9)], axis=1) for distance in away]

    return Objective(score, len(targets))


def around(centre: tuple[float, ...], seed: int = 0, count: int = 36) -> np.ndarray:
    return np.array(centre) + np.random.default_rng(seed).normal(0, 0.02, (count, len(centre)))


@pytest.mark.parametrize("strategy", ["greedy", "optimise"])
def test_a_search_finds_the_weights_that_the_samples_want(strategy: str) -> None:
    found = search(strategy, objective(around((0.75, 0.25, 0.0))), FOLDS, 3)
    assert np.allclose(found.weights, (0.75, 0.25, 0.0), atol=0.11)
    assert found.cross_fitted > search("equal", objective(around((0.75, 0.25, 0.0))), FOLDS, 3).cross_fitted
    assert found.column == 1
    assert found.optimistic >= found.cross_fitted - 1e-9


@pytest.mark.parametrize("each", [12, 80], ids=["all at once", "screened first"])
@pytest.mark.parametrize("strategy", list(STRATEGIES))
@pytest.mark.parametrize("fold", [0, 1, 2])
def test_a_folds_truth_never_reaches_its_own_choice(strategy: str, fold: int, each: int) -> None:
    folds = np.repeat([0, 1, 2], each)
    truth = around((0.6, 0.4, 0.0, 0.0), count=len(folds))
    shuffled = truth.copy()
    shuffled[fold == folds] = around((0.0, 1.0, 0.0, 0.0), seed=5, count=each)
    before = search(strategy, objective(truth), folds, 4)
    after = search(strategy, objective(shuffled), folds, 4)
    assert after.per_fold[fold] == before.per_fold[fold]
    assert strategy == "equal" or after.per_fold[(fold + 1) % 3] != before.per_fold[(fold + 1) % 3]


@pytest.mark.parametrize("count", [36, 60, 3 * SCREENS[-1][0]])
def test_no_sample_is_scored_twice_with_the_same_mixture(count: int) -> None:
    calls: list[tuple[Weights, int]] = []
    shared = objective(around((0.5, 0.3, 0.2), count=count), calls)
    for strategy in STRATEGIES:
        search(strategy, shared, np.arange(count) % 3, 3)
    assert len(calls) == len(set(calls)) > count


def test_among_many_samples_few_mixtures_are_scored_on_all_and_the_choice_stays() -> None:
    count, centre = 4 * SCREENS[-1][0], (0.0, 0.5, 0.3, 0.2, 0.0, 0.0, 0.0, 0.0)
    calls: list[tuple[Weights, int]] = []
    found = search("optimise", objective(around(centre, count=count), calls), np.arange(count) % 4, 8)
    assert np.allclose(found.weights, centre, atol=0.11)
    asked = len({weights for weights, _ in calls})
    # A step has sixteen candidates: all on a sixteenth of the samples, six on a quarter, two on all; half as much again
    # because folds shortlist different ones.
    assert len(calls) < asked * count * (1 / 16 + 6 / 16 / 4 + 2 / 16) * 1.5


def test_folds_are_searched_together_in_few_passes() -> None:
    passes: list[int] = []
    targets = around((0.7, 0.2, 0.1))

    def score(candidates: list[Weights], rows: np.ndarray) -> list[np.ndarray]:
        passes.append(len(candidates))
        return [1 - np.abs(targets[rows] - np.array(weights)).sum(axis=1, keepdims=True) for weights in candidates]

    alone = Objective(score, 36)
    search("optimise", alone, np.zeros(36, np.int64), 3)
    single = len(passes)
    passes.clear()
    search("optimise", Objective(score, 36), np.arange(36) % 9, 3)
    assert len(passes) <= 2 * single


def test_worth_is_what_is_lost_without_a_member() -> None:
    added = worth(objective(around((0.9, 0.1, 0.0))), (0.9, 0.1, 0.0))
    assert added[0] > added[1] > 0
    # The third has no weight: with an equal share of it the ensemble would be worse.
    assert added[2] < 0


def test_the_only_member_adds_its_lead_over_the_best_of_the_others() -> None:
    shared = objective(around((0.9, 0.1, 0.0)))
    added = worth(shared, (1.0, 0.0, 0.0))
    alone = [shared.tables([tuple(np.eye(3)[index])])[0][:, 1].mean() for index in range(3)]
    assert added[0] == pytest.approx(alone[0] - max(alone[1:]))
    assert set(added) == {0, 1, 2}
    assert worth(objective(around((1.0,))), (1.0,)) == {}


def test_weights_sum_to_one() -> None:
    assert normalised([1, 1, 2]) == (0.25, 0.25, 0.5)
