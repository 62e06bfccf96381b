"""How a TIFF holds its picture: interleaved, planar, or one page a band; strips or tiles; with or without a pyramid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp

from histofold.errors import DataError
from histofold.slides import tiff
from histofold.slides.gdal import open_dataset


@dataclass(frozen=True)
class Plane:
    """One dataset of GDAL's and the bands to read from it.

    Attributes:
        name: GDAL's name of the file or page.
        bands: 1-based; planes together give red, green and blue, or one grey band.
        overview: number of the pyramid level, -1 for the page itself.
    """

    name: str
    bands: tuple[int, ...]
    overview: int = -1


@dataclass(frozen=True)
class Level:
    """One resolution of a slide.

    Attributes:
        number: 0 is the full size, then the pyramid by rising factor.
        factor: how many full-size pixels one of its pixels is wide.
        height, width: in its own pixels.
        block_rows: rows that are compressed together; reads that begin and end there decode nothing twice.
        sequential: rows can only be decoded from the top (one compressed strip), so that one handle must read them all.
        planes: where the colours are.
    """

    number: int
    factor: int
    height: int
    width: int
    block_rows: int
    sequential: bool = False
    planes: tuple[Plane, ...] = ()


@dataclass(frozen=True)
class Layout:
    """A slide's sample type, the value of full intensity, and its resolutions, full size first."""

    kind: str
    ceiling: int
    levels: tuple[Level, ...]


def read_layout(path: Path) -> Layout:
    """Find out how a TIFF holds its picture; decodes nothing.

    Raises:
        DataError: not a TIFF, truncated, or something else than a grey, RGB or RGBA picture of 8 or 16 bit.
    """
    with rasterio.Env(), open_dataset(path, str(path)) as main:
        tiff.require_whole(path)
        kind = str(main.dtypes[0])
        if kind not in ("uint8", "uint16") or len(set(main.dtypes)) > 1:
            raise DataError(f"{path}: samples are {', '.join(sorted(set(main.dtypes)))}, expected 8 or 16 bit unsigned")
        if main.colorinterp[0] == ColorInterp.palette:
            raise DataError(f"{path}: colours come from a palette; convert it to RGB")
        planes = _planes(path, main)
        levels = [_level(0, 1, main, planes)]
        for factor, overview, dataset in _pyramid(path, main):
            parts = tuple(replace(plane, overview=overview) for plane in planes)
            levels.append(_level(len(levels), factor, dataset, parts))
        bits = int(main.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8 * np.dtype(kind).itemsize))
    return Layout(kind, (1 << bits) - 1, tuple(sorted(levels, key=lambda level: level.factor)))


def _planes(path: Path, main: Any) -> tuple[Plane, ...]:
    """Datasets and bands of the colours; alpha, the fourth band or page, is left out."""
    name = str(path)
    if main.count in (3, 4):
        if main.interleaving is not None and main.interleaving.value == "BAND":
            # A handle for each plane: one that changes planes would begin a long strip again at every change.
            return tuple(Plane(name, (band,)) for band in (1, 2, 3))
        return (Plane(name, (1, 2, 3)),)
    if main.count not in (1, 2):
        raise DataError(f"{path}: {main.count} bands, expected grey, RGB or RGBA")
    pages = [page for page in main.subdatasets if _alike(path, page, main)] if main.count == 1 else []
    if len(pages) in (3, 4):
        return tuple(Plane(page, (1,)) for page in pages[:3])
    if len(pages) > 1:
        raise DataError(f"{path}: {len(pages)} pages of one band, expected one (grey), three (RGB) or four (RGBA)")
    return (Plane(name, (1,)),)


def _alike(path: Path, page: str, main: Any) -> bool:
    with open_dataset(path, page) as dataset:
        return bool(dataset.shape == main.shape and dataset.count == 1 and dataset.dtypes == main.dtypes)


def _pyramid(path: Path, main: Any) -> Iterator[tuple[int, int, Any]]:
    """Reduced copies of the picture: factor, number, and dataset."""
    if main.count == 1 and main.subdatasets:
        return  # one page a band: the reduced pages of the other bands are not listed
    for number in range(len(main.overviews(1))):
        with open_dataset(path, str(path), number) as dataset:
            factor = _factor(main, dataset)
            if factor:
                yield factor, number, dataset


def _factor(main: Any, dataset: Any) -> int:
    """Whole factor between two resolutions, 0 if there is none or the samples differ."""
    factor = round(main.width / dataset.width)
    fits = all(abs(full / max(factor, 1) - part) < 1 for full, part in zip(main.shape, dataset.shape, strict=True))
    return factor if fits and factor > 1 and dataset.count == main.count and dataset.dtypes == main.dtypes else 0


def _level(number: int, factor: int, dataset: Any, planes: tuple[Plane, ...]) -> Level:
    rows = int(dataset.block_shapes[0][0])
    compressed = dataset.compression is not None and dataset.compression.value.upper() != "NONE"
    # GDAL shows one long strip as blocks of one row, but it has no second strip whose place it could tell.
    single = rows == 1 and dataset.height > 1 and dataset.get_tag_item("BLOCK_OFFSET_0_1", "TIFF", bidx=1) is None
    return Level(number, factor, dataset.height, dataset.width, rows, compressed and single, planes)
