"""Whole-slide formats of scanner makers (SVS, NDPI, MRXS, …) through openslide, which is an optional extra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histofold.errors import DataError
from histofold.slides.layout import Layout, Level

ENDINGS = {".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".czi"}
"""File name endings that are opened with openslide and not as plain TIFF."""


def is_foreign(path: Path) -> bool:
    """Whether openslide is needed, judged by the name's ending."""
    return path.suffix.lower() in ENDINGS


def _openslide(path: Path) -> Any:
    try:
        import openslide
    except ImportError as error:
        raise DataError(
            f"{path}: {path.suffix} slides need openslide, which is not installed; "
            "`pip install openslide-python openslide-bin`, or convert the slide to TIFF"
        ) from error
    if not path.exists():
        raise DataError(f"{path}: no such file")
    try:
        return openslide.OpenSlide(str(path))
    except openslide.OpenSlideError as error:
        raise DataError(f"{path}: openslide cannot read it ({error}); copy or download it again") from error


def read_layout(path: Path) -> Layout:
    """Sizes and levels of a slide.

    Raises:
        DataError: openslide is not installed, or does not know the file.
    """
    with _openslide(path) as slide:
        width, height = slide.dimensions
        rows = int(slide.properties.get("openslide.level[0].tile-height", 256))
        levels = [Level(0, 1, height, width, rows)]
        for number in range(1, slide.level_count):
            level_width, level_height = slide.level_dimensions[number]
            factor = round(slide.level_downsamples[number])
            rows = int(slide.properties.get(f"openslide.level[{number}].tile-height", 256))
            if abs(width / factor - level_width) < 1 and abs(height / factor - level_height) < 1:
                levels.append(Level(number, factor, level_height, level_width, rows))
    return Layout("uint8", 255, tuple(levels))


class OpenslideSource:
    """Rows of one level of a slide that openslide reads."""

    def __init__(self, path: Path, level: Level) -> None:
        self.path = path
        self._level = level
        self._slide = _openslide(path)

    def read(self, y: int, x: int, out: NDArray[Any]) -> None:
        """Fill `out` (3, rows, columns) with the pixels from row y and column x on; unscanned glass is white.

        Raises:
            DataError: the rows cannot be decoded.
        """
        import openslide

        factor, number = self._level.factor, self._level.number
        try:
            region = self._slide.read_region((x * factor, y * factor), number, (out.shape[2], out.shape[1]))
        except openslide.OpenSlideError as error:
            raise DataError(f"{self.path}: rows {y} to {y + out.shape[1]} cannot be decoded ({error})") from error
        pixels = np.asarray(region)
        alpha = pixels[:, :, 3:].astype(np.uint16)
        blended = (pixels[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255
        out[:] = blended.astype(np.uint8).transpose(2, 0, 1)

    def close(self) -> None:
        """Close the file."""
        self._slide.close()
