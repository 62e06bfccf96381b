"""Rows of a benchmark's table: ours, the peer, the ratio, the floor, and whether what is asked for is reached."""

from __future__ import annotations

from dataclasses import dataclass

HEAD = ["what", "ours", "beside", "its", "its to ours", "floor", "its", "ours to floor", "to reach", "", "note"]


@dataclass(frozen=True)
class Row:
    """One row; less is better.

    Attributes:
        what: is measured, with its size.
        unit: of `ours`, `theirs` and `least`.
        peer, theirs: who else does it, and what it takes.
        floor, least: what nobody can do without, and what that takes.
        limit: what is to reach at most; None where nothing is asked for, and the value is stated.
        absolute: whether `limit` is for `ours`; else it is for `ours / least`.
        note: what else there is to say.
    """

    what: str
    unit: str
    ours: float
    peer: str
    theirs: float
    floor: str
    least: float
    limit: float | None = None
    absolute: bool = False
    note: str = ""

    @property
    def value(self) -> float:
        """What is judged."""
        return self.ours if self.absolute else self.ours / self.least

    @property
    def reached(self) -> bool:
        """Whether the value is within its limit; what has none is."""
        return self.limit is None or self.value <= self.limit

    def cells(self) -> list[str]:
        """The cells of a table row."""
        ours, theirs, least = (f"{value:.4g} {self.unit}" for value in (self.ours, self.theirs, self.least))
        ratios = f"{self.theirs / self.ours:.2f} ×", f"{self.ours / self.least:.3f} ×"
        asked = "" if self.limit is None else f"{self.limit:g} {self.unit if self.absolute else '×'}"
        word = "stated" if self.limit is None else "reached" if self.reached else "NOT reached"
        return [self.what, ours, self.peer, theirs, ratios[0], self.floor, least, ratios[1], asked, word, self.note]

    def line(self) -> str:
        """The row of a Markdown table."""
        return "| " + " | ".join(self.cells()) + " |"


def head() -> str:
    """The head of the Markdown table."""
    return "| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|"
