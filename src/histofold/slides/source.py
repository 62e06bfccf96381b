"""TIFF pages through GDAL: which pages and bands are the picture, and rows of them as planes."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.env import set_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from histofold.errors import DataError

CACHE_BYTES = 16 << 20
"""GDAL's cache of decoded blocks. Bands read whole blocks once, so a small cache that stays in the CPU's is fastest."""

_warnings = threading.Lock()
_cached_in = -1


class Source(Protocol):
    """One handle on one resolution of a slide; used by one thread at a time."""

    def read(self, y: int, x: int, out: NDArray[Any]) -> None:
        """Fill `out` (3, rows, columns) with the pixels from row y and column x on."""

    def close(self) -> None:
        """Give the file back."""


@dataclass(frozen=True)
class Level:
    """One resolution of a slide.

    Attributes:
        factor: how many full-size pixels one of its pixels is wide.
        height, width: in its own pixels.
        block_rows: rows that are compressed together; reads that begin and end there decode nothing twice.
        sequential: rows can only be decoded from the top (one compressed strip), so that one handle must read them all.
        number: of the level in the file; -1 is the full size.
    """

    factor: int
    height: int
    width: int
    block_rows: int
    sequential: bool
    number: int = -1


@dataclass(frozen=True)
class Layout:
    """How one TIFF holds its picture.

    Attributes:
        planes: GDAL's name of each dataset to open and its bands, so that together they give red, green and blue.
        kind: data type of a sample, uint8 or uint16.
        ceiling: the value of full intensity.
        levels: full size first, then the pyramid by rising factor.
    """

    planes: tuple[tuple[str, tuple[int, ...]], ...]
    kind: str
    ceiling: int
    levels: tuple[Level, ...]


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the warning that a slide lies nowhere on Earth, inside this block only."""
    with _warnings, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def bound_cache() -> None:
    """Bound GDAL's cache once in each process, unless GDAL_CACHEMAX says otherwise."""
    global _cached_in
    if _cached_in != os.getpid() and "GDAL_CACHEMAX" not in os.environ:
        set_gdal_config("GDAL_CACHEMAX", CACHE_BYTES)
    _cached_in = os.getpid()


def open_dataset(path: Path, name: str, level: int = -1) -> Any:
    """Open one page of a TIFF with rasterio, or one level of its pyramid.

    Raises:
        DataError: not there, not a TIFF, or broken.
    """
    bound_cache()
    options: dict[str, Any] = {} if level < 0 else {"overview_level": level}
    try:
        with quiet():
            # A handle of its own each time: threads must not share one.
            return rasterio.open(name, driver="GTiff", sharing=False, **options)
    except RasterioError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that is not a TIFF or whose head is broken."""
    if not path.is_file():
        return DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        return DataError(f"{path}: the file is empty, expected a TIFF; copy or download it again")
    with path.open("rb") as stream:
        magic = stream.read(4)
    if magic[:2] in (b"II", b"MM"):
        return DataError(f"{path}: the TIFF is truncated or damaged ({_short(error)}); copy or download it again")
    return DataError(f"{path}: not a TIFF (it begins with {magic!r}); expected a TIFF slide")


def _short(error: Exception) -> str:
    cause = error.__cause__ or error
    return " ".join(str(cause).split())[:200]


class TiffSource:
    """Rows of a TIFF's picture, full size or one level of its pyramid."""

    def __init__(self, path: Path, layout: Layout, level: Level) -> None:
        self.path = path
        self._planes: list[tuple[Any, list[int], slice]] = []
        channel = 0
        for name, bands in layout.planes:
            dataset = open_dataset(path, name, level.number)
            self._planes.append((dataset, list(bands), slice(channel, channel + len(bands))))
            channel += len(bands)

    def read(self, y: int, x: int, out: NDArray[Any]) -> None:
        """Fill `out` (3, rows, columns) with the pixels from row y and column x on.

        Raises:
            DataError: the rows cannot be decoded.
        """
        window = Window(x, y, out.shape[2], out.shape[1])
        try:
            for dataset, bands, part in self._planes:
                dataset.read(bands, window=window, out=out[part])
        except RasterioError as error:
            rows = f"rows {y} to {y + out.shape[1]}"
            raise DataError(
                f"{self.path}: {rows} cannot be decoded, the TIFF is truncated or damaged ({_short(error)}); "
                "copy or download it again"
            ) from error
        if len(self._planes) == 1 and len(self._planes[0][1]) == 1:
            out[1:] = out[:1]

    def close(self) -> None:
        """Close the file."""
        for dataset, _, _ in self._planes:
            dataset.close()


def read_layout(path: Path) -> Layout:
    """Find out how a TIFF holds its picture.

    Raises:
        DataError: not a TIFF, or one that holds something else than a grey, RGB or RGBA picture of 8 or 16 bit.
    """
    with open_dataset(path, str(path)) as main:
        kind = str(main.dtypes[0])
        if kind not in ("uint8", "uint16") or len(set(main.dtypes)) > 1:
            raise DataError(f"{path}: samples are {kind}, expected 8 or 16 bit unsigned")
        if main.colorinterp[0] == rasterio.enums.ColorInterp.palette:
            raise DataError(f"{path}: colours come from a palette, expected RGB; convert it to RGB")
        planes, pages = _planes(path, main)
        levels = _levels(path, main)
        bits = int(main.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8 * np.dtype(kind).itemsize))
    if pages:
        levels = tuple(replace(level, sequential=False) if level.number >= 0 else level for level in levels)
    return Layout(planes, kind, (1 << bits) - 1, levels)


def _planes(path: Path, main: Any) -> tuple[tuple[tuple[str, tuple[int, ...]], ...], bool]:
    """Datasets and bands of the three colours, and whether they are pages of their own."""
    name = str(path)
    if main.count in (3, 4):
        if main.interleaving is not None and main.interleaving.value == "BAND":
            # A handle for each plane: one that changes planes would start a long strip again for each change.
            return tuple((name, (band,)) for band in (1, 2, 3)), False
        return ((name, (1, 2, 3)),), False
    if main.count > 4:
        raise DataError(f"{path}: {main.count} bands, expected grey, RGB or RGBA")
    pages = [page for page in main.subdatasets if _same_size(path, page, main)] if main.count == 1 else []
    if len(pages) in (3, 4):
        return tuple((page, (1,)) for page in pages[:3]), True
    if len(pages) > 1:
        raise DataError(f"{path}: {len(pages)} pages of one band, expected one (grey), three (RGB) or four (RGBA)")
    return ((name, (1,)),), False


def _same_size(path: Path, page: str, main: Any) -> bool:
    with open_dataset(path, page) as dataset:
        return bool(dataset.shape == main.shape and dataset.count == 1 and dataset.dtypes == main.dtypes)


def _levels(path: Path, main: Any) -> tuple[Level, ...]:
    levels = [_level(main, 1, -1, main.height)]
    for number, factor in enumerate(main.overviews(1)):
        with open_dataset(path, str(path), number) as dataset:
            levels.append(_level(dataset, factor, number, main.height))
    return tuple(levels)


def _level(dataset: Any, factor: int, number: int, height: int) -> Level:
    rows = int(dataset.block_shapes[0][0])
    compressed = dataset.compression is not None and dataset.compression.value not in ("NONE", "None")
    # GDAL shows one long compressed strip as blocks of one row; TIFFs with true strips of one row have many offsets.
    single = rows == 1 and dataset.height > 1 and dataset.get_tag_item("BLOCK_OFFSET_0_1", "TIFF", bidx=1) is None
    return Level(factor, dataset.height, dataset.width, rows, compressed and single, number)
