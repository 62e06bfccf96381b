"""Tiles of a sample as batches of pixels: each is read, and each way of preprocessing it done, once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from histofold.inference.blending import Axis
from histofold.inference.sources import Enhance, Pixels, RollingRows, Source
from histofold.tiles.tissue import PIXEL, tissue_mask

CHUNK = 256
"""Rows that are read from a source at once."""


@dataclass(frozen=True)
class TileBatch:
    """Tiles of one forward pass.

    Attributes:
        places: (row, column) of each tile in the grid, in reading order.
        pixels: for each way of preprocessing (B, 3, T, T) uint8, channels last in memory.
    """

    places: tuple[tuple[int, int], ...]
    pixels: tuple[torch.Tensor, ...]


def tile_batches(
    source: Source,
    rows: Axis,
    columns: Axis,
    enhance: Sequence[Enhance],
    size: int,
    skip_background: bool,
    pinned: bool = False,
) -> Iterator[TileBatch]:
    """Walk over a source and give its tiles, `size` at a time (fewer at the end), in reading order.

    Batches go on over the end of a row of tiles, so that all but the last are full. With `skip_background`, tiles
    of a sparse source without tissue are left out. `pinned` tensors move to a GPU without waiting.
    """
    cutter = _Cutter(source, rows, columns, enhance)
    places: list[tuple[int, int]] = []
    tiles: list[list[Pixels]] = []
    for row in range(len(rows.starts)):
        band = cutter.band(row)
        wanted = (
            _with_tissue(band, columns, source.scale)
            if skip_background and source.sparse
            else range(len(columns.starts))
        )
        for column in wanted:
            places.append((row, column))
            tiles.append(cutter.tile(band, column))
            if len(places) == size:
                yield _batch(places, tiles, pinned)
                places, tiles = [], []
    if places:
        yield _batch(places, tiles, pinned)


class _Cutter:
    """Cuts tiles out of the rows of a source, filled up by reflection where the image is smaller than a tile."""

    def __init__(self, source: Source, rows: Axis, columns: Axis, enhance: Sequence[Enhance]) -> None:
        self.source, self.rows, self.columns, self.enhance = source, rows, columns, enhance
        held = min(rows.tile, rows.length)
        self.reader = RollingRows(source.bands(min(CHUNK, held), enhance), held)

    def band(self, row: int) -> Pixels:
        """All columns of a row of tiles: (tile, width or padded width, channels); valid until the next call."""
        start = max(0, self.rows.starts[row])
        band = self.reader.window(start, min(start + self.rows.tile, self.rows.length))
        if self.rows.padded:
            band = band[self.rows.reflection()]
        if self.columns.padded:
            band = band[:, self.columns.reflection()]
        return band

    def tile(self, band: Pixels, column: int) -> list[Pixels]:
        """A tile in each way of preprocessing: (tile, tile, 3) each."""
        start = 0 if self.columns.padded else self.columns.starts[column]
        tile = band[:, start : start + self.columns.tile]
        if self.source.whole:
            return [tile[:, :, 3 * k : 3 * k + 3].copy() for k in range(len(self.enhance))]
        # Copied, because the rows under a view change when the walk goes on.
        tile = tile.copy()
        return [function(tile) for function in self.enhance]


def _with_tissue(band: Pixels, columns: Axis, scale: float) -> list[int]:
    """Columns of a row of tiles that hold any tissue, looked for in the resolution that `prepare` looks at, too."""
    height, width = band.shape[:2]
    cell = max(1, round(PIXEL / scale))
    small_size = (-(-width // cell), -(-height // cell))
    small = cv2.resize(band, small_size, interpolation=cv2.INTER_AREA)
    tissue: NDArray[np.bool_] = np.any(tissue_mask(small), axis=0)
    found = []
    for column, start in enumerate(columns.starts):
        first = max(0, start) * len(tissue) // width
        last = -(-min(start + columns.tile, width) * len(tissue) // width)
        if tissue[first:last].any():
            found.append(column)
    return found


def _batch(places: list[tuple[int, int]], tiles: list[list[Pixels]], pinned: bool) -> TileBatch:
    """Tiles as tensors; the permuted view is channels last in memory already."""
    tensors = [torch.from_numpy(np.stack(version)).permute(0, 3, 1, 2) for version in zip(*tiles, strict=True)]
    return TileBatch(tuple(places), tuple(tensor.pin_memory() if pinned else tensor for tensor in tensors))
