"""How a TIFF holds its picture: interleaved, planar, or one page a band; strips or tiles; with or without a pyramid."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp

from histofold.errors import DataError
from histofold.slides import depth, tiff
from histofold.slides.gdal import open_dataset

TALL_BYTES = 64 << 20
"""Decoded bytes of a strip above which one thread reads it alone, in pieces that are no larger than this."""
_STACK = re.compile(r"\AImageJ=.*^images=(\d+)", re.DOTALL | re.MULTILINE)
"""How ImageJ says in the description of the first page how many there are."""


@dataclass(frozen=True)
class Plane:
    """One dataset of GDAL's and the bands to read from it.

    Attributes:
        name: GDAL's name of the file or page.
        bands: 1-based; planes together give red, green and blue, or one grey band.
        overview: number of the pyramid level, -1 for the page itself.
        white: where small samples are bright (MINISWHITE), the sample of black, which all are taken from; else 0.
        most: full intensity where a tag says it, 0 where none does: larger samples, which belie the tag, count as it.
    """

    name: str
    bands: tuple[int, ...]
    overview: int = -1
    white: int = 0
    most: int = 0


@dataclass(frozen=True)
class Level:
    """One resolution of a slide.

    Attributes:
        number: 0 is the full size, then the pyramid by rising factor.
        factor: how many full-size pixels one of its pixels is wide.
        height, width: in its own pixels.
        block_rows: rows that are compressed together; reads that begin and end there decode nothing twice.
        block_bytes: bytes of a decoded block, of all its colours.
        sequential: rows can only be decoded from the top (one compressed strip), or a strip is so tall that no two
            should be decoded at once, so that one handle must read them all.
        planes: where the colours are.
        above, left: rows and columns of the file before its first, in its own pixels; blocks are counted from there.
    """

    number: int
    factor: int
    height: int
    width: int
    block_rows: int
    block_bytes: int = 0
    sequential: bool = False
    planes: tuple[Plane, ...] = ()
    above: int = 0
    left: int = 0

    @property
    def piecewise(self) -> bool:
        """Whether a block may be read in pieces: the handle keeps the last one decoded, if it holds all colours."""
        return self.sequential and self.block_rows > 1 and len(self.planes) == 1


@dataclass(frozen=True)
class Layout:
    """How a slide holds its picture.

    Attributes:
        kind: sample type.
        ceiling: value of full intensity; of 16-bit samples what BitsPerSample or MaxSampleValue say, else 65535: a
            slide is not read through for it, so that one of 12 bits without either is dark.
        levels: its resolutions, full size first.
        handle_bytes: what each handle holds beside the rows that it fills and the blocks that it decodes.
    """

    kind: str
    ceiling: int
    levels: tuple[Level, ...]
    handle_bytes: int = 0


def read_layout(path: Path) -> Layout:
    """Find out how a TIFF holds its picture; decodes nothing.

    Raises:
        DataError: not a TIFF, truncated, or something else than a grey, RGB or RGBA picture of 8 or 16 bit, or 1 bit.
    """
    with rasterio.Env():
        with open_dataset(path, str(path)) as first:
            tiff.require_whole(path)
            pages = list(first.subdatasets)
            name = _largest(path, first, pages)
        with open_dataset(path, name) as main:
            return _layout(path, name, main, pages)


def _largest(path: Path, first: Any, pages: Sequence[str]) -> str:
    """GDAL's name of the picture: the largest page, as some programs put a thumbnail before it."""
    name, most = str(path), first.width * first.height
    for page in pages:
        with open_dataset(path, page) as dataset:
            if dataset.width * dataset.height > most:
                name, most = page, dataset.width * dataset.height
    return name


def _layout(path: Path, name: str, main: Any, pages: Sequence[str]) -> Layout:
    kind = str(main.dtypes[0])
    if kind not in ("uint8", "uint16") or len(set(main.dtypes)) > 1:
        raise DataError(f"{path}: samples are {', '.join(sorted(set(main.dtypes)))}, expected 8 or 16 bit unsigned")
    bits = int(main.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8 * np.dtype(kind).itemsize))
    most = _most(main) if bits == 16 else 0
    ceiling = most or (1 << bits) - 1
    white = _white(path, main, ceiling)
    planes = tuple(replace(plane, white=white, most=most) for plane in _planes(path, name, main, pages))
    levels = [_level(0, 1, main, planes)]
    for factor, overview, dataset in _pyramid(path, main, planes):
        parts = tuple(replace(plane, overview=overview) for plane in planes)
        levels.append(_level(len(levels), factor, dataset, parts))
    return Layout(kind, ceiling, tuple(sorted(levels, key=lambda level: level.factor)))


def _most(main: Any) -> int:
    """`Plane.most` of 16-bit samples: the bits that MaxSampleValue needs, as in `depth.ceiling_of`."""
    text = str(main.tags().get("TIFFTAG_MAXSAMPLEVALUE", "")).strip()
    ceiling = depth.ceiling_of(min(int(text), 65535)) if text.isdigit() and int(text) else 65535
    return ceiling if ceiling < 65535 else 0


def _white(path: Path, main: Any, ceiling: int) -> int:
    """`Plane.white`. GDAL shows a palette for MINISWHITE, and for every picture of one bit.

    Raises:
        DataError: colours come from a real palette.
    """
    if main.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        return ceiling
    if main.colorinterp[0] != ColorInterp.palette:
        return 0
    colours = [main.colormap(1).get(value, ())[:3] for value in (0, 1)]
    if ceiling == 1 and sorted(colours) == [(0, 0, 0), (255, 255, 255)]:
        return 1 if colours[0] == (255, 255, 255) else 0
    raise DataError(f"{path}: colours come from a palette; convert it to RGB")


def _planes(path: Path, name: str, main: Any, every: Sequence[str]) -> tuple[Plane, ...]:
    """Datasets and bands of the colours; alpha, the fourth band or page, is left out.

    Raises:
        DataError: several pages of one size that are not the bands of one picture.
    """
    alike = [page for page in every if _alike(path, page, main)]
    if main.count > 1 and len(alike) > 1:
        raise DataError(
            f"{path}: {len(alike)} pages of {main.height} × {main.width} pixels in colour, as of a stack, expected "
            "one; save the one that is meant, or each as a file of its own"
        )
    if main.count in (3, 4):
        if main.interleaving is not None and main.interleaving.value == "BAND":
            # A handle for each plane: one that changes planes would begin a long strip again at every change.
            return tuple(Plane(name, (band,)) for band in (1, 2, 3))
        return (Plane(name, (1, 2, 3)),)
    if main.count not in (1, 2):
        raise DataError(f"{path}: {main.count} bands, expected grey, RGB or RGBA")
    if len(alike) in (3, 4):
        return tuple(Plane(page, (1,)) for page in alike[:3])
    if len(alike) > 1:
        raise DataError(f"{path}: {len(alike)} pages of one band, expected one (grey), three (RGB) or four (RGBA)")
    _require_whole(path, main)
    return (Plane(name, (1,)),)


def _require_whole(path: Path, main: Any) -> None:
    """Raise DataError where more pictures follow the first than the file has directories, as ImageJ writes above 4 GB.

    GDAL sees the first alone, which would pass for a grey picture; only the description tells.
    """
    told = _STACK.search(str(main.tags().get("TIFFTAG_IMAGEDESCRIPTION", "")))
    if told and int(told[1]) > 1:
        raise DataError(
            f"{path}: {told[1]} pictures, as ImageJ's description of it says, in one page, of which only the first "
            "can be read; save it as RGB (in ImageJ: Image, Type, RGB Color)"
        )


def _alike(path: Path, page: str, other: Any, overview: int = -1) -> bool:
    """Whether a page, or one level of its pyramid, could be another band of the picture `other`, or another picture."""
    with open_dataset(path, page, overview) as dataset:
        return bool(dataset.shape == other.shape and dataset.count == other.count and dataset.dtypes == other.dtypes)


def _pyramid(path: Path, main: Any, planes: Sequence[Plane]) -> Iterator[tuple[int, int, Any]]:
    """Reduced copies of the picture: factor, number, and dataset (of the first page, where there is one a band).

    Pages of one band each have copies of their own, as sub-directories; a copy that one of them lacks is left out. The
    file as a whole would list the copies of all its pages as if they were one picture's.
    """
    name, *others = dict.fromkeys(plane.name for plane in planes)
    counts = []
    for page in (name, *others):
        with open_dataset(path, page) as dataset:
            counts.append(len(dataset.overviews(1)))
    for number in range(min(counts)):
        with open_dataset(path, name, number) as dataset:
            factor = _factor(main, dataset)
            if factor and all(_alike(path, page, dataset, number) for page in others):
                yield factor, number, dataset


def _factor(main: Any, dataset: Any) -> int:
    """Whole factor between two resolutions, 0 if there is none or the samples differ."""
    factor = round(main.width / dataset.width)
    fits = all(abs(full / max(factor, 1) - part) < 1 for full, part in zip(main.shape, dataset.shape, strict=True))
    return factor if fits and factor > 1 and dataset.count == main.count and dataset.dtypes == main.dtypes else 0


def _level(number: int, factor: int, dataset: Any, planes: tuple[Plane, ...]) -> Level:
    rows, columns = (int(side) for side in dataset.block_shapes[0])
    compressed = dataset.compression is not None and dataset.compression.value.upper() != "NONE"
    # GDAL shows one long strip as blocks of one row, but it has no second strip whose place it could tell.
    single = rows == 1 and dataset.height > 1 and dataset.get_tag_item("BLOCK_OFFSET_0_1", "TIFF", bidx=1) is None
    colours = max(dataset.count, len(planes))
    block = rows * columns * colours * np.dtype(dataset.dtypes[0]).itemsize
    sequential = (compressed and single) or block > TALL_BYTES
    return Level(number, factor, dataset.height, dataset.width, rows, block, sequential, planes)
