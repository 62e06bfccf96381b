"""Where tiles lie along an axis, and how their predictions are weighted where they overlap.

Windows are separable and their normalisation is analytic: along each axis the weights of the tiles that cover a pixel
sum to one, so the product of two axes does, too, and no map of counts is kept beside the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histofold.errors import ConfigError
from histofold.tiles import grid

WINDOWS = ("hann", "triangle", "flat")
CELLS = 2
"""The least cells of a network's coarsest map along a side of a tile that shrinks to a small image. One is not enough:
in bfloat16, some CPUs compute strided convolutions whose output is one wide and more than one high from memory that was
never written."""


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis of an image.

    Attributes:
        length: pixels of the image.
        tile: side of a tile in pixels, as the network sees it.
        starts: first pixel of each tile; one tile that is longer than the image starts before it.
        low, high: the part of each tile that is kept, within the tile (margins and padding cut off).
        weights: for each tile the weights of its kept part, float32, positive; they sum to 1 at each pixel.
    """

    length: int
    tile: int
    starts: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    weights: tuple[NDArray[np.float32], ...]

    @property
    def padded(self) -> bool:
        """Whether the one tile is longer than the image, so that it is filled up by reflection."""
        return self.tile > self.length

    def first(self, index: int) -> int:
        """First pixel of the image that tile `index` adds to."""
        return self.starts[index] + self.low[index]

    def reflection(self) -> NDArray[np.intp]:
        """For a padded axis: which pixel of the image each pixel of the tile shows."""
        return reflect(np.arange(self.starts[0], self.starts[0] + self.tile), self.length)


def reflect(positions: NDArray[np.intp], length: int) -> NDArray[np.intp]:
    """Fold positions outside of [0, length) back by reflection at the outer pixels, as often as it takes."""
    if length == 1:
        return np.zeros_like(positions)
    folded = np.abs(positions) % (2 * (length - 1))
    return np.where(folded < length, folded, 2 * (length - 1) - folded)


def window(name: str, size: int) -> NDArray[np.float64]:
    """A positive window of `size` pixels: hann (Hann's sine squared), triangle or flat.

    Raises:
        ConfigError: no such window.
    """
    centres = (np.arange(size) + 0.5) / size
    if name == "hann":
        return np.sin(np.pi * centres) ** 2
    if name == "triangle":
        return 1 - np.abs(2 * centres - 1)
    if name == "flat":
        return np.ones(size)
    raise ConfigError(f"predict.window={name!r} is unknown; choose one of {', '.join(WINDOWS)}")


def axis(length: int, tile: int, step: int, margin: int, name: str, divisor: int = 1) -> Axis:
    """Lay tiles along an axis of `length` pixels.

    Args:
        length: pixels of the image, at least 1.
        tile: side of a tile; it shrinks to the next multiple of `divisor` above `length` for a small image, but not
            below `CELLS` of them.
        step: pixels from tile to tile; it shrinks to what the margins leave.
        margin: pixels cut from every inner side of a tile; outer sides, at the border of the image, are kept.
        name: of the window.
        divisor: what the network's input must be a multiple of.
    """
    tile = min(tile, max(CELLS, -(-length // divisor)) * divisor)
    if tile >= length:
        before = (tile - length) // 2
        ones = np.ones(length, dtype=np.float32)
        return Axis(length, tile, (-before,), (before,), (before + length,), (ones,))
    starts = grid.starts(length, tile, min(step, tile - 2 * margin))
    last = len(starts) - 1
    low = [0 if index == 0 else margin for index in range(len(starts))]
    high = [tile if index == last else tile - margin for index in range(len(starts))]
    # Outside of the window's own core the weights go on as they end: only outer sides reach there, alone.
    shape = np.pad(window(name, tile - 2 * margin), margin, mode="edge")
    total = np.zeros(length)
    for start, a, b in zip(starts, low, high, strict=True):
        total[start + a : start + b] += shape[a:b]
    weights = [
        (shape[a:b] / total[start + a : start + b]).astype(np.float32)
        for start, a, b in zip(starts, low, high, strict=True)
    ]
    return Axis(length, tile, tuple(starts), tuple(low), tuple(high), tuple(weights))


def cost(tile: int, step: int, margin: int) -> float:
    """Forward passes over each pixel of a large image: 1 without overlap, 1.78 at a step of ¾, 4 at a step of ½."""
    return (tile / min(step, tile - 2 * margin)) ** 2
