"""Where tiles lie: exact cover without useless tiles, and the one rule for the size of a reduced image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from histofold.errors import ConfigError

LARGEST_SCALE = 1024
"""Reductions above this make a slide smaller than a thumbnail and would overflow the exact sums."""


def rational(scale: float | Fraction) -> Fraction:
    """Read a reduction as an exact fraction, so that sizes and pixel borders never depend on rounding.

    1.3 becomes 13/10 and 8 / 3 becomes 8/3. The denominator is at most 4096 (less above 16), so a scale that is no such
    fraction becomes the nearest one: 1.3333 is read as 4/3, which over 60,000 pixels makes a difference of 1.5 pixels,
    and 1.0001 as 1 (6 pixels). So whatever places pixels by a scale (reading, tiles, upsampling) takes the fraction and
    never the number as it was written, or masks would drift from their slides.

    Raises:
        ConfigError: the scale is not a number between 1 and 1024.
    """
    if not math.isfinite(scale) or not 1 <= scale <= LARGEST_SCALE:
        raise ConfigError(f"scale={scale}: expected a reduction between 1 (full size) and {LARGEST_SCALE}, such as 4")
    return Fraction(scale).limit_denominator(4096 if scale < 16 else 256 if scale < 256 else 4)


def reduced(length: int, scale: float | Fraction) -> int:
    """Pixels of a side of `length` pixels after reduction by `scale`: length / scale, rounded up."""
    return math.ceil(length / rational(scale))


def starts(length: int, tile: int, step: int) -> list[int]:
    """First pixels of the tiles that cover 0..length: every `step`, the last one flush with the end.

    A length that is a multiple of the tile needs no tile beyond it (`pad = size - length % size` is the classic bug),
    and a length up to one tile needs exactly one.

    Raises:
        ConfigError: a step below 1, or above the tile, which would leave gaps.
    """
    if not 1 <= step <= tile:
        raise ConfigError(f"step={step}: expected between 1 and the tile of {tile} pixels; a larger step leaves gaps")
    if length <= tile:
        return [0]
    count = math.ceil((length - tile) / step)
    return [index * step for index in range(count)] + [length - tile]


def shifted_starts(length: int, tile: int) -> list[int]:
    """First pixels of the second grid, half a tile later: whole tiles only, so that none needs padding."""
    return list(range(tile // 2, length - tile + 1, tile))


@dataclass(frozen=True)
class Grid:
    """Tiles that cover an image of height × width, each tile × tile pixels, `step` apart.

    A side shorter than the tile has one tile that reaches past it.
    """

    height: int
    width: int
    tile: int
    step: int

    @property
    def rows(self) -> list[int]:
        """First rows of the tiles, ascending."""
        return starts(self.height, self.tile, self.step)

    @property
    def columns(self) -> list[int]:
        """First columns of the tiles, ascending."""
        return starts(self.width, self.tile, self.step)

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.columns)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (y, x) of every tile, row by row."""
        columns = self.columns
        return ((y, x) for y in self.rows for x in columns)
