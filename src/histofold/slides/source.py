"""Rows of a slide as planes: the one thing that file formats have to give."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from histofold.errors import DataError
from histofold.slides.gdal import open_dataset, reason
from histofold.slides.layout import Level


class Source(Protocol):
    """One handle on one resolution of a slide; used by one thread at a time."""

    def read(self, y: int, x: int, out: NDArray[Any]) -> None:
        """Fill `out` (3, rows, columns) with the pixels from row y and column x on."""

    def close(self) -> None:
        """Give the file back."""


class TiffSource:
    """Rows of a TIFF's picture, full size or one level of its pyramid."""

    def __init__(self, path: Path, level: Level) -> None:
        self.path = path
        self._planes: list[tuple[Any, list[int], slice]] = []
        self._white = level.planes[0].white
        self._most = level.planes[0].most
        channel = 0
        for plane in level.planes:
            dataset = open_dataset(path, plane.name, plane.overview)
            self._planes.append((dataset, list(plane.bands), slice(channel, channel + len(plane.bands))))
            channel += len(plane.bands)
        self._grey = channel == 1

    def read(self, y: int, x: int, out: NDArray[Any]) -> None:
        """Fill `out` (3, rows, columns) with the pixels from row y and column x on.

        Grey is given thrice, and turned round where zero is white.

        Raises:
            DataError: the rows cannot be decoded.
        """
        window = Window(x, y, out.shape[2], out.shape[1])
        try:
            for dataset, bands, part in self._planes:
                dataset.read(bands, window=window, out=out[part])
        except RasterioError as error:
            raise DataError(
                f"{self.path}: rows {y} to {y + out.shape[1]} cannot be decoded, the TIFF is truncated or damaged "
                f"({reason(error)}); copy or download it again"
            ) from error
        if self._most:
            np.minimum(out, self._most, out=out)
        if self._white:
            np.subtract(self._white, out, out=out)
        if self._grey:
            out[1:] = out[:1]

    def close(self) -> None:
        """Close the file."""
        for dataset, _, _ in self._planes:
            dataset.close()
