"""The time that a notebook has: views are chosen by estimates, then by what was measured, and never more than asked."""

from __future__ import annotations

import pytest

from histofold.offline.budget import Budget, OutOfTimeError, TooSlowError

COST = {"dihedral": 8.0, "flips": 4.0, "none": 1.0}


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def budget(seconds: float, wanted: str = "dihedral") -> tuple[Budget, Clock]:
    clock = Clock()
    return Budget(seconds, wanted, lambda _, views: COST[views], clock), clock


@pytest.mark.parametrize(
    ("seconds", "wanted", "chosen"),
    [
        (100, "dihedral", "dihedral"),
        (100, "flips", "flips"),
        (100, "none", "none"),
        (60, "dihedral", "flips"),
        (30, "dihedral", "none"),
        (1, "dihedral", "none"),
    ],
)
def test_the_most_views_that_fit(seconds: float, wanted: str, chosen: str) -> None:
    assert budget(seconds, wanted)[0].choose(["a"] * 10) == chosen


def test_what_was_measured_counts_more_than_the_estimate() -> None:
    times, clock = budget(100)
    assert times.choose(list("abcdefghij")) == "dihedral"
    clock.now += 24
    times.measured("a", "dihedral", 24)  # three times as slow
    assert times.ratio == pytest.approx(3)
    assert times.choose(list("bcdefghij")) == "none"


def test_time_before_the_budget_was_made_counts() -> None:
    clock = Clock()
    assert Budget(50, "none", lambda *_: 1.0, clock, begun=70.0).left == pytest.approx(20)


def test_a_slow_sample_starts_again_with_fewer_views() -> None:
    times, clock = budget(100)
    told = times.watch("a", ["b"] * 5, "dihedral", 1000)
    clock.now += 1
    told(10)  # 1 % says nothing yet
    clock.now += 9
    with pytest.raises(TooSlowError):
        told(20)  # 10 s for 3 %
    assert times.ratio == pytest.approx(10 / 0.03 / 8)
    assert times.choose(["a"] + ["b"] * 5) == "none"


def test_a_sample_in_time_is_left_alone() -> None:
    times, clock = budget(100)
    told = times.watch("a", ["b"], "dihedral", 1000)
    for _ in range(100):
        clock.now += 0.08
        told(10)


def test_the_fewest_views_go_on_until_the_time_is_over() -> None:
    times, clock = budget(100)
    told = times.watch("a", ["b"] * 5, "none", 1000)
    clock.now += 99
    told(30)
    clock.now += 2
    with pytest.raises(OutOfTimeError):
        told(30)
