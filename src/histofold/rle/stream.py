"""Run-length text of a slide whose mask only ever exists as row bands."""

from __future__ import annotations

from histofold.rle import components, lines
from histofold.rle.arrays import Pixels
from histofold.rle.dialects import Dialect, RleError, find
from histofold.rle.runmask import RunMask


class RowStreamEncoder:
    """Encode a mask from row bands, in memory proportional to its outline.

    Objects and holes are judged at the end, by one union-find over the runs of all rows, so that the cuts between bands
    leave no trace: objects (8-connected) of fewer than `min_area` pixels are dropped, then holes (4-connected, not at
    the border) of at most `max_hole` pixels filled. Example::

        encoder = RowStreamEncoder(height, width)
        for band in bands:           # (h, width) each, top to bottom
            encoder.push(band)
        text = encoder.finish()
    """

    def __init__(
        self, height: int, width: int, dialect: str | Dialect = "columns", min_area: int = 0, max_hole: int = 0
    ) -> None:
        self.height, self.width, self.dialect = height, width, find(dialect)
        self.min_area, self.max_hole = min_area, max_hole
        self.received = 0
        self._parts: list[lines.Lines] = []

    def push(self, band: Pixels) -> None:
        """Add the next rows, (h, width), boolean or integer; everything but 0 is foreground.

        Raises:
            RleError: the width is another one, or there are more rows than the mask has.
        """
        if band.ndim != 2 or band.shape[1] != self.width:
            raise RleError(f"expected a band of (rows, {self.width}) pixels, found {band.shape}")
        self.push_lines(lines.scan(band, binary=True))

    def push_lines(self, rows: lines.Lines) -> None:
        """Add the next rows as change points; raises as `push`."""
        if self.received + rows.count > self.height:
            raise RleError(f"row {self.received + rows.count} of a mask of {self.height} rows: a band too many")
        self.received += rows.count
        self._parts.append(rows)

    def mask(self) -> RunMask:
        """The whole mask as runs, once all rows have been pushed.

        Raises:
            RleError: rows are missing.
        """
        if self.received != self.height:
            raise RleError(f"{self.received} of {self.height} rows were pushed; push the rest before finish()")
        self._parts = [lines.stack(self._parts, self.width)]
        return RunMask.from_rows(components.clean(self._parts[0], self.min_area, self.max_hole), self.dialect)

    def finish(self) -> str:
        """The text of the mask; raises RleError when rows are missing."""
        return self.mask().text()
