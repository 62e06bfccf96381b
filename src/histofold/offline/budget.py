"""The time that a notebook has: how many test-time views fit into it, first estimated, then measured on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

VIEWS = ("dihedral", "flips", "none")
"""Test-time views from the most (8 of each tile) over 4 to one."""

SPARE = 0.9
"""Share of the time that is planned with; the rest is for what an estimate does not know."""

SEEN = 0.02
"""Share of a sample that must be done before its speed is believed."""

Estimate = Callable[[str, str], float]
"""(sample, views) → seconds."""


class TooSlowError(Exception):
    """A sample goes so slowly that the time would not suffice; it starts again with fewer views."""


class OutOfTimeError(Exception):
    """The time is over."""


@dataclass
class Budget:
    """Chooses the views of each sample, so that all of them are done in time.

    Attributes:
        seconds: in all, from `begun` on.
        wanted: the views that the ensemble was made for; never more than these.
        estimate: seconds of a sample with some views, before anything was measured.
        clock: seconds of a clock that never goes back.
        begun: what the clock showed when the notebook started.
        ratio: measured over estimated seconds, from the samples so far.
    """

    seconds: float
    wanted: str
    estimate: Estimate
    clock: Callable[[], float] = time.monotonic
    begun: float | None = None
    ratio: float = 1.0
    _spent: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begun = self.clock() if self.begun is None else self.begun

    @property
    def left(self) -> float:
        """Seconds that may still be used."""
        assert self.begun is not None
        return self.seconds - (self.clock() - self.begun)

    def ladder(self) -> tuple[str, ...]:
        """The wanted views and all fewer ones."""
        return VIEWS[VIEWS.index(self.wanted) :]

    def expected(self, samples: Sequence[str], views: str) -> float:
        """Seconds that samples will take, by the estimate and what was measured since."""
        return self.ratio * sum(self.estimate(sample, views) for sample in samples)

    def choose(self, samples: Sequence[str]) -> str:
        """The most views with which all of `samples` are done in time; without hope the fewest."""
        for views in self.ladder():
            if self.expected(samples, views) <= SPARE * self.left:
                return views
        return self.ladder()[-1]

    def watch(self, sample: str, others: Sequence[str], views: str, pixels: int) -> Callable[[int], None]:
        """A function that is told of finished pixels of `sample` and raises when it goes too slowly.

        Args:
            sample: what is being predicted.
            others: the samples after it.
            views: of this sample.
            pixels: of it, in all.

        Raises (the function):
            TooSlowError: this speed would cost the others their time, and fewer views are possible.
            OutOfTimeError: the time is over.
        """
        start, fewer = self.clock(), views != self.ladder()[-1]
        mine = self.estimate(sample, views)
        rest = sum(self.estimate(other, self.ladder()[-1]) for other in others)
        done = 0

        def told(count: int) -> None:
            nonlocal done
            done += count
            if self.left <= 0:
                raise OutOfTimeError
            elapsed = self.clock() - start
            if not fewer or done < SEEN * pixels:
                return
            ratio = elapsed * pixels / done / mine
            # The others could still do with the fewest views; this one must leave them that.
            if elapsed * (pixels / done - 1) + ratio * rest > self.left:
                self.ratio = ratio
                raise TooSlowError

        return told

    def measured(self, sample: str, views: str, seconds: float) -> None:
        """Tell what a whole sample took."""
        self._spent.append((self.estimate(sample, views), seconds))
        planned, taken = (sum(column) for column in zip(*self._spent, strict=True))
        self.ratio = taken / planned if planned > 0 else 1.0
