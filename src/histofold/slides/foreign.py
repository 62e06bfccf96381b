"""Whole-slide formats of scanner makers (SVS, NDPI, MRXS, …) through openslide, which is an optional extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histofold.errors import DataError
from histofold.slides.layout import Layout, Level

PIECE = 2048
"""Columns that are decoded at once, about: openslide gives four bytes a pixel beside the three that are wanted."""
BLENDING = 8
"""Bytes for a pixel while it is blended: four of 16 bits."""
CACHE_BYTES = 16 << 20
"""openslide's cache of decoded tiles, of each handle. Rows are read from left to right once, so it may be small."""
ENDINGS = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".czi")
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
    """Sizes and levels of a slide, of the part that was scanned where the file says which.

    MRXS, SCN and others lie on a canvas that is mostly empty, whose `openslide.bounds-…` tell where the scan is. QuPath
    shows that part alone and counts pixels from its corner, and so do all that is read and written here.

    Raises:
        DataError: openslide is not installed, or does not know the file.
    """
    with _openslide(path) as slide:
        bounds = _bounds(slide)
        found = (_level(slide, number, bounds) for number in range(slide.level_count))
        levels = tuple(level for level in found if level is not None)
        rows, columns = _tile(slide, 0)
    # RGBA of a piece twice, openslide's and ours, and what blending needs of it.
    piece = (2 * 4 + BLENDING) * rows * _columns(columns)
    return Layout("uint8", 255, levels, CACHE_BYTES + piece)


def _bounds(slide: Any) -> tuple[int, int, int, int]:
    """Row, column, height and width of the scanned part; the whole canvas where that is not told, or absurd."""
    width, height = slide.dimensions
    told = [slide.properties.get(f"openslide.bounds-{key}", "") for key in ("y", "x", "height", "width")]
    try:
        y, x, rows, columns = (int(text) for text in told)
    except ValueError:
        return 0, 0, height, width
    # A scan may reach beyond the canvas, where there is nothing to read; its corner is the origin all the same.
    rows, columns = min(rows, height - y), min(columns, width - x)
    return (y, x, rows, columns) if min(y, x) >= 0 and min(rows, columns) > 0 else (0, 0, height, width)


def _level(slide: Any, number: int, bounds: tuple[int, int, int, int]) -> Level | None:
    """One resolution within the bounds; None where its pixels are not whole numbers of full-size ones from there on."""
    width, height = slide.dimensions
    level_width, level_height = slide.level_dimensions[number]
    factor = round(slide.level_downsamples[number])
    y, x, rows, columns = bounds
    if abs(width / factor - level_width) >= 1 or abs(height / factor - level_height) >= 1 or y % factor or x % factor:
        return None
    # What is no whole pixel at the end of the bounds shares its pixel with what is outside of them.
    inner_rows = level_height - y // factor if y + rows == height else rows // factor
    inner_columns = level_width - x // factor if x + columns == width else columns // factor
    if min(inner_rows, inner_columns) < 1:
        return None
    above, left = y // factor, x // factor
    return Level(number, factor, inner_rows, inner_columns, _tile(slide, number)[0], above=above, left=left)


def _tile(slide: Any, number: int) -> tuple[int, int]:
    """Rows and columns of a level's tiles."""
    name = f"openslide.level[{number}].tile-"
    return int(slide.properties.get(name + "height", 256)), int(slide.properties.get(name + "width", 256))


def _columns(tile: int) -> int:
    """Columns that are decoded at once: whole tiles, so that none is decoded twice."""
    return max(1, PIECE // tile) * tile


class OpenslideSource:
    """Rows of one level of a slide that openslide reads."""

    def __init__(self, path: Path, level: Level) -> None:
        self.path = path
        self._level = level
        self._slide = _openslide(path)
        _bound_cache(self._slide)
        self._tile = _tile(self._slide, level.number)

    def read(self, y: int, x: int, out: NDArray[Any]) -> None:
        """Fill `out` (3, rows, columns) with the pixels from row y and column x on; unscanned glass is white.

        Raises:
            DataError: the rows cannot be decoded.
        """
        rows, columns = self._tile
        # Tiles are counted from the corner of the file, not of the scan.
        y, x = y + self._level.above, x + self._level.left
        for top, bottom in _cuts(y, y + out.shape[1], rows):
            for left, right in _cuts(x, x + out.shape[2], _columns(columns)):
                part = out[:, top - y : bottom - y, left - x : right - x]
                _blend(self._region(top, left, bottom - top, right - left), part)

    def _region(self, y: int, x: int, rows: int, columns: int) -> NDArray[np.uint8]:
        """RGBA (rows, columns, 4)."""
        import openslide

        number = self._level.number
        # openslide divides by this, which is not quite whole where a side is no multiple of the factor.
        factor = self._slide.level_downsamples[number]
        place = (round(x * factor), round(y * factor))
        try:
            return np.asarray(self._slide.read_region(place, number, (columns, rows)))
        except openslide.OpenSlideError as error:
            raise DataError(f"{self.path}: rows {y} to {y + rows} cannot be decoded ({error})") from error

    def close(self) -> None:
        """Close the file."""
        self._slide.close()


def _bound_cache(slide: Any) -> None:
    import openslide

    with suppress(openslide.OpenSlideVersionError):  # before openslide 4 it is 32 MB and stays so
        slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))


def _cuts(first: int, last: int, step: int) -> Iterator[tuple[int, int]]:
    """The range [first, last), cut at the multiples of `step`."""
    return pairwise([first, *range((first // step + 1) * step, last, step), last])


def _blend(pixels: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Put RGBA (rows, columns, 4) on white, as planes (3, rows, columns)."""
    alpha = pixels[:, :, 3]
    if alpha.min() == 255:
        out[:] = pixels[:, :, :3].transpose(2, 0, 1)
        return
    weight = alpha.astype(np.uint16)
    white = 255 * (255 - weight) + 127
    for channel in range(3):
        out[channel] = (pixels[:, :, channel] * weight + white) // 255
