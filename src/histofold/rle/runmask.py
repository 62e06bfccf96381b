"""A slide's mask that is never painted: windows, reduced windows, objects and overlaps straight from its runs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from histofold.rle import components, kernels, lines, text
from histofold.rle.arrays import Floats, Longs, Pixels
from histofold.rle.codec import parsed_rows
from histofold.rle.dialects import Dialect, RleError, find

HALF = 0.5 - 1e-9
"""A cell that is exactly half covered counts as foreground, whatever rounding did to its share."""


class RunMask:
    """The mask of one slide as runs; memory is that of the outline (a few MB where the pixels would be a GB).

    Example: `RunMask(text, (31_299, 44_066)).window(1000, 2000, 512, 512)`.

    Raises:
        RleError: the text breaks a rule of the dialect, or goes past the shape.
    """

    def __init__(self, rle: str, shape: tuple[int, int], dialect: str | Dialect = "columns") -> None:
        self.dialect = find(dialect)
        self.rows = parsed_rows(rle, shape, self.dialect)

    @classmethod
    def from_rows(cls, rows: lines.Lines, dialect: str | Dialect = "columns") -> RunMask:
        """Wrap the binary rows of a mask."""
        mask = cls.__new__(cls)
        mask.dialect, mask.rows = find(dialect), rows
        return mask

    @classmethod
    def from_mask(cls, mask: Pixels, dialect: str | Dialect = "columns") -> RunMask:
        """Take the runs of an (H, W) mask, boolean or integer; everything but 0 is foreground."""
        return cls.from_rows(lines.scan(np.asarray(mask), binary=True), dialect)

    @property
    def height(self) -> int:
        """Rows."""
        return self.rows.count

    @property
    def width(self) -> int:
        """Pixels in a row."""
        return self.rows.length

    @property
    def area(self) -> int:
        """Foreground pixels."""
        return lines.area(self.rows)

    @property
    def runs(self) -> tuple[Longs, Longs]:
        """0-based starts and lengths of the runs, in the order of the dialect."""
        ordered = self.rows if self.dialect.order == "rows" else lines.transpose(self.rows)
        return lines.flatten(ordered)[:2]

    def text(self) -> str:
        """The mask as a text of its dialect."""
        return text.write(*self.runs, self.dialect)

    def window(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Paint a (height, width) window of 0 and 1; what lies outside of the mask is 0."""
        out = np.zeros((height, width), np.uint8)
        kernels.paint(*self.rows.arrays, self.width, y, x, out)
        return out

    def reduced_window(self, y: int, x: int, height: int, width: int, scale: float) -> Floats:
        """The share of foreground, 0..1, in each scale × scale cell of a window of full-size pixels.

        Gives (ceil(height / scale), ceil(width / scale)) float32. Pixels that lie in two cells count in both by their
        parts, so that it is exact for fractional scales. The share is of that part of a cell which lies within the
        window and the mask; a cell outside of the mask is 0. For a binary mask see `reduced_mask`.

        Raises:
            RleError: the scale is below 1.
        """
        if scale < 1:
            raise RleError(f"a reduction is at least 1, not {scale}")
        covered = np.zeros((math.ceil(height / scale), math.ceil(width / scale)))
        kernels.cover(*self.rows.arrays, self.width, y, x, height, width, float(scale), covered)
        real = np.outer(
            _extent(covered.shape[0], scale, -y, min(height, self.height - y)),
            _extent(covered.shape[1], scale, -x, min(width, self.width - x)),
        )
        return np.divide(covered, real, out=np.zeros_like(covered), where=real > 0).clip(0, 1).astype(np.float32)

    def reduced_mask(self, y: int, x: int, height: int, width: int, scale: float) -> NDArray[np.uint8]:
        """As `reduced_window`, 1 where at least half of the cell is foreground, else 0."""
        return (self.reduced_window(y, x, height, width, scale) >= HALF).astype(np.uint8)

    def boxes(self) -> Longs:
        """The 8-connected objects, (n, 5) int64: first row, first column, height, width, area."""
        return components.connect(self.rows, diagonal=True).boxes

    def cleaned(self, min_area: int = 0, max_hole: int = 0) -> RunMask:
        """Without objects of fewer than `min_area` pixels, holes of at most `max_hole` pixels filled."""
        return RunMask.from_rows(components.clean(self.rows, min_area, max_hole), self.dialect)

    def intersection(self, other: RunMask) -> int:
        """Pixels that are foreground in both masks; the dialects may differ.

        Raises:
            RleError: the masks have different shapes.
        """
        if (self.height, self.width) != (other.height, other.width):
            sizes = f"{self.height} × {self.width} and {other.height} × {other.width}"
            raise RleError(f"two masks of different size: {sizes} (rows × columns)")
        return int(kernels.shared(*self.rows.arrays, *other.rows.arrays, self.width))

    def dice(self, other: RunMask) -> float:
        """Dice of two masks, 1 when both are empty.

        Raises:
            RleError: the masks have different shapes.
        """
        total = self.area + other.area
        return 2 * self.intersection(other) / total if total else 1.0


def _extent(cells: int, scale: float, low: int, high: int) -> NDArray[np.float64]:
    """How many pixels of low..high each cell holds along one axis."""
    edges = np.clip(np.arange(cells + 1) * scale, max(0, low), max(0, low, high))
    return np.diff(edges)
