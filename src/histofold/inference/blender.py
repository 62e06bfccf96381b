"""The canvas under the tiles: adds weighted predictions up and hands finished rows on as uint8."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from histofold.errors import DataError
from histofold.inference.blending import Axis
from histofold.targets.base import Band

FINE = 257
"""Steps of the fixed-point numbers that are blended in one step of uint8.

Predictions are rounded to 1 / (255 · 257) before they are blended. Since 257 is odd, rounding such numbers once more to
uint8 never meets a tie and gives what rounding at once would have given; and since the weights sum to 1 up to a few
10⁻⁷, blending equal numbers gives that number back. So overlap changes nothing where the tiles agree, to the bit.
"""


class Finished:
    """Rows that are done, on their way from the device; the device goes on computing meanwhile.

    Args:
        first: their first row.
        codes: (K, h, W) uint8 on the device.
        sound: one bool on the device: whether all values were numbers.
    """

    def __init__(self, first: int, codes: torch.Tensor, sound: torch.Tensor) -> None:
        self.first = first
        self.event: torch.cuda.Event | None = None
        self.codes, self.sound = codes, sound
        if codes.is_cuda:
            self.codes, self.sound = _to_pinned(codes), _to_pinned(sound)
            self.event = torch.cuda.Event()
            self.event.record()

    def fetch(self) -> tuple[int, NDArray[np.uint8]]:
        """Wait for the rows: (first row, uint8 (K, h, W)).

        Raises:
            DataError: a network gave something that is no number.
        """
        if self.event is not None:
            self.event.synchronize()
        if not bool(self.sound):
            raise DataError(
                f"a network gave values that are no numbers near row {self.first}; try predict.precision=32-true, "
                "or look at the curves of its training"
            )
        return self.first, self.codes.numpy()


def _to_pinned(tensor: torch.Tensor) -> torch.Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


class Blender:
    """Rows under the current row of tiles: (K, tile, width) float32, whatever the height of the image.

    It holds the difference to the code of value 0, so that what no tile adds to is predicted 0.
    """

    def __init__(self, rows: Axis, columns: Axis, bands: Sequence[Band], device: torch.device) -> None:
        self.rows, self.columns = rows, columns
        self.row_weights = [torch.from_numpy(item).to(device)[:, None] for item in rows.weights]
        self.column_weights = [torch.from_numpy(item).to(device) for item in columns.weights]
        self.low = torch.tensor([band.low for band in bands], device=device).view(-1, 1, 1)
        span = torch.tensor([band.high - band.low for band in bands], device=device).view(-1, 1, 1)
        self.gain = 255 * FINE / span
        self.zero = ((0 - self.low) * self.gain).round().clamp(0, 255 * FINE)
        self.shifted = any(band.low != 0 for band in bands)
        self.sum = torch.zeros(len(bands), min(rows.tile, rows.length), columns.length, device=device)
        self.row = 0
        self.top = 0

    def add(self, columns: Sequence[int], values: torch.Tensor) -> None:
        """Add the bands (N, K, T, T) of tiles in the current row of tiles; `values` is used up.

        What can be done for all tiles at once is done so: a tile by itself is too small to be worth an operation.
        """
        y0, y1 = self.rows.low[self.row], self.rows.high[self.row]
        codes = values[:, :, y0:y1]
        codes = codes.sub_(self.low) if self.shifted else codes
        codes = codes.mul_(self.gain).round_().clamp_(0, 255 * FINE)
        codes = codes.sub_(self.zero) if self.shifted else codes
        codes.mul_(self.row_weights[self.row])
        top = self.rows.first(self.row) - self.top
        for column, code in zip(columns, codes, strict=True):
            x0, x1 = self.columns.low[column], self.columns.high[column]
            left = self.columns.first(column)
            place = self.sum[:, top : top + y1 - y0, left : left + x1 - x0]
            place.addcmul_(code[:, :, x0:x1], self.column_weights[column])

    def advance(self) -> Finished:
        """Go on to the next row of tiles; gives the rows that no later tile adds to."""
        self.row += 1
        last = self.row == len(self.rows.starts)
        top = self.rows.length if last else self.rows.first(self.row)
        count, first = top - self.top, self.top
        finished = self.sum[:, :count].add_(self.zero).div_(FINE).round_()
        sound = torch.isfinite(finished.sum())
        codes = finished.clamp_(0, 255).to(torch.uint8)
        if not last:
            self.sum[:, :-count] = self.sum[:, count:].clone()
            self.sum[:, -count:] = 0
        self.top = top
        return Finished(first, codes, sound)

    @property
    def done(self) -> bool:
        """Whether all rows have been handed on."""
        return self.row == len(self.rows.starts)
