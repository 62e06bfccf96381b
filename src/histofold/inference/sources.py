"""What a predictor reads from: an image in memory or a slide on disk, both as bands of rows in one walk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from histofold import slides
from histofold.errors import DataError
from histofold.files import reading
from histofold.tiles import grid

Pixels = NDArray[np.uint8]
Enhance = Callable[[Pixels], Pixels]
"""The part of preprocessing that works on uint8 images (H, W, 3)."""


class Source(Protocol):
    """A sample at the scale it is predicted at.

    Attributes:
        height, width: pixels at that scale.
        scale: its reduction ≥ 1.
        full_height, full_width: pixels of the original.
        sparse: whether much of it may be empty glass, so that background may be skipped.
        whole: whether preprocessing sees the whole sample (images) or each tile (slides).
    """

    height: int
    width: int
    scale: float
    full_height: int
    full_width: int
    sparse: bool
    whole: bool

    def close(self) -> None:
        """Let go of what is open."""

    def bands(self, height: int, enhance: Sequence[Enhance]) -> Iterator[Pixels]:
        """Rows from top to bottom as (up to `height`, width, 3 or 3 n): with `whole`, n = len(enhance) versions."""


class ArraySource:
    """An RGB image (H, W, 3) uint8 in memory, already at the scale it is predicted at.

    Args:
        image: its pixels.
        scale: the reduction that `image` has been made with.
        full_size: (height, width) of the original, where it was reduced.

    Raises:
        DataError: not an RGB image of uint8.
    """

    sparse = False
    whole = True

    def __init__(self, image: Pixels, scale: float = 1.0, full_size: tuple[int, int] | None = None) -> None:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise DataError(f"expected an RGB image (H, W, 3) of uint8, found shape {image.shape} of {image.dtype}")
        self.image = image
        self.height, self.width = image.shape[:2]
        self.scale = float(scale)
        size = full_size or image.shape[:2]
        self.full_height, self.full_width = int(size[0]), int(size[1])

    def close(self) -> None:
        """Nothing is open."""

    def bands(self, height: int, enhance: Sequence[Enhance]) -> Iterator[Pixels]:
        """Rows of all enhanced versions of the whole image, side by side along the last axis."""
        versions = [function(self.image) for function in enhance]
        stacked = versions[0] if len(versions) == 1 else np.concatenate(versions, axis=2)
        for top in range(0, self.height, height):
            yield stacked[top : top + height]


class SlideSource:
    """A slide on disk at a reduction; it is walked once from top to bottom and never held in memory.

    Args:
        slide: open; `close` closes it.
        scale: reduction ≥ 1.
        sparse: whether tiles without colour are background; not so for fluorescence, which is grey all over.
    """

    whole = False

    def __init__(self, slide: slides.Slide, scale: float = 1.0, sparse: bool = True) -> None:
        self.slide = slide
        self.sparse = sparse
        self.scale = float(scale)
        self.full_height, self.full_width = slide.height, slide.width
        self.height = grid.reduced(slide.height, scale)
        self.width = grid.reduced(slide.width, scale)

    def close(self) -> None:
        """Close the slide."""
        self.slide.close()

    def bands(self, height: int, enhance: Sequence[Enhance]) -> Iterator[Pixels]:
        """Rows as they are; `enhance` is for the tiles.

        Raises:
            DataError: the slide is damaged, or asks for more memory than there is.
        """
        with reading(self.slide.path):
            for _, rows in self.slide.bands(height, scale=self.scale):
                yield rows


class RollingRows:
    """Keeps the rows of the current row of tiles, and no others.

    Args:
        bands: rows (any, width, channels) from top to bottom.
        capacity: rows that are asked for at once, at most.
    """

    def __init__(self, bands: Iterator[Pixels], capacity: int) -> None:
        self.source = bands
        self.capacity = capacity
        self.top = self.stop = 0
        self.buffer: Pixels | None = None
        self.rest: Pixels | None = None

    def window(self, start: int, stop: int) -> Pixels:
        """Rows [start, stop) as a view that lasts until the next call; `start` never goes back.

        Raises:
            DataError: the rows end early.
        """
        if self.buffer is not None and start > self.top:
            kept = max(0, self.stop - start)
            self.buffer[:kept] = self.buffer[start - self.top : start - self.top + kept]
            self.top = start
        while self.stop < stop:
            self._fill(stop)
        assert self.buffer is not None
        return self.buffer[: stop - start]

    def _fill(self, stop: int) -> None:
        rows = self.rest if self.rest is not None else next(self.source, None)
        if rows is None:
            raise DataError(f"the pixels end at row {self.stop}, expected at least {stop}; is the file whole?")
        if self.buffer is None:
            self.buffer = np.empty((self.capacity, *rows.shape[1:]), dtype=np.uint8)
        taken = min(len(rows), stop - self.stop)
        at = self.stop - self.top
        self.buffer[at : at + taken] = rows[:taken]
        self.stop += taken
        self.rest = rows[taken:] if taken < len(rows) else None
