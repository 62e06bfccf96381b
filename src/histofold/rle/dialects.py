"""What differs between competitions in a run-length text: the order, the index of the first pixel, the empty mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from histofold.errors import DataError


class RleError(DataError):
    """A run-length text breaks its dialect's rules, or a mask cannot be encoded."""


@dataclass(frozen=True)
class Dialect:
    """One way to write a mask as `start length` pairs.

    `order` says whether pixels are counted down the columns or along the rows, `base` is the number of the first pixel,
    `empty` the text of a mask without foreground.
    """

    name: str
    order: Literal["columns", "rows"]
    base: int = 1
    empty: str = ""


DIALECTS: dict[str, Dialect] = {
    "columns": Dialect("columns", order="columns"),  # HuBMAP 2020 and 2022, Data Science Bowl 2018
    "rows": Dialect("rows", order="rows", empty="1 0"),  # SenNet 2024
}


def find(dialect: str | Dialect) -> Dialect:
    """Look a dialect up by its name; a `Dialect` is given back as it is.

    Raises:
        RleError: no dialect has this name.
    """
    if isinstance(dialect, Dialect):
        return dialect
    if dialect not in DIALECTS:
        raise RleError(f"unknown RLE dialect {dialect!r}; known are {', '.join(DIALECTS)}")
    return DIALECTS[dialect]
