"""Slides drawn into a temporary folder, one for each way in which TIFFs hold a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray

Picture = NDArray[Any]
Draw = Callable[[str, Picture, Path], Path]

HEIGHT, WIDTH = 301, 417


def gtiff(path: Path, picture: Picture, **options: Any) -> Path:
    """Write (H, W, C) with GDAL's creation options."""
    height, width, count = picture.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, dtype=picture.dtype, **options
    ) as dataset:
        dataset.write(picture.transpose(2, 0, 1))
    return path


def pages(path: Path, picture: Picture, **options: Any) -> Path:
    """Write one page a band: three sub-datasets in GDAL's eyes."""
    for band in range(picture.shape[2]):
        more = {} if band == 0 else {"append_subdataset": "yes"}
        gtiff(path, picture[:, :, band : band + 1], **options, **more)
    return path


def hyperstack(path: Path, picture: Picture, **options: Any) -> Path:
    """Write 1 × 1 × 3 × H × W, as ImageJ and OME do."""
    tifffile.imwrite(path, np.ascontiguousarray(picture.transpose(2, 0, 1))[None, None], **options)
    return path


def pyramid(path: Path, picture: Picture, resampling: str, **options: Any) -> Path:
    """Write a tiled TIFF with reduced copies."""
    gtiff(path, picture, tiled=True, blockxsize=64, blockysize=64, **options)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4, 8], getattr(rasterio.enums.Resampling, resampling))
    return path


def ome_pyramid(path: Path, picture: Picture) -> Path:
    """Write a pyramid into sub-directories of the first page, where GDAL does not look for it."""
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, photometric="rgb", tile=(64, 64), subifds=2)
        for factor in (2, 4):
            height, width = (side // factor for side in picture.shape[:2])
            cells = picture[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
            level = (cells.mean(axis=(1, 3)) + 0.5).astype(np.uint8)
            writer.write(level, photometric="rgb", tile=(64, 64), subfiletype=1)
    return path


def levels_of(path: Path, picture: Picture, levels: list[Picture]) -> Path:
    """Write a picture and its reduced copies as they are given."""
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, photometric="rgb", tile=(64, 64), subifds=len(levels))
        for level in levels:
            writer.write(level, photometric="rgb", tile=(64, 64), subfiletype=1)
    return path


def page_levels_of(path: Path, picture: Picture, levels: list[list[Picture]]) -> Path:
    """Write one page a band, each with reduced copies (H, W) of its own in sub-directories."""
    with tifffile.TiffWriter(path) as writer:
        for band, copies in enumerate(levels):
            writer.write(picture[:, :, band], photometric="minisblack", tile=(64, 64), subifds=len(copies))
            for copy in copies:
                writer.write(copy, photometric="minisblack", tile=(64, 64), subfiletype=1)
    return path


def with_alpha(picture: Picture) -> Picture:
    """Add a fourth channel that is not all opaque."""
    alpha = np.full((*picture.shape[:2], 1), 255, picture.dtype)
    alpha[:50] = 0
    return np.concatenate([picture, alpha], axis=2)


PIXEL = {"interleave": "pixel"}
PLANAR = {"interleave": "band"}
TILED = {"tiled": True, "blockxsize": 64, "blockysize": 32}
LAYOUTS: dict[str, Callable[[Path, Picture], Path]] = {
    "raw strips": lambda path, picture: gtiff(path, picture, **PIXEL, blockysize=7),
    "raw one strip": lambda path, picture: gtiff(path, picture, **PIXEL, blockysize=HEIGHT),
    "raw tiles": lambda path, picture: gtiff(path, picture, **PIXEL, **TILED),
    "lzw strips": lambda path, picture: gtiff(path, picture, **PIXEL, compress="lzw", predictor=2, blockysize=16),
    "lzw strips of one row": lambda path, picture: gtiff(path, picture, **PIXEL, compress="lzw", blockysize=1),
    "lzw one strip": lambda path, picture: gtiff(path, picture, **PIXEL, compress="lzw", blockysize=HEIGHT),
    "deflate tiles": lambda path, picture: gtiff(path, picture, **PIXEL, **TILED, compress="deflate"),
    "bigtiff": lambda path, picture: gtiff(path, picture, **PIXEL, **TILED, compress="deflate", bigtiff="yes"),
    "big endian": lambda path, picture: gtiff(path, picture, **PIXEL, compress="lzw", endianness="big"),
    "planar raw": lambda path, picture: gtiff(path, picture, **PLANAR),
    "planar lzw": lambda path, picture: gtiff(path, picture, **PLANAR, compress="lzw", blockysize=8),
    "planar one strip": lambda path, picture: gtiff(path, picture, **PLANAR, compress="lzw", blockysize=HEIGHT),
    "planar tiles": lambda path, picture: gtiff(path, picture, **PLANAR, **TILED, compress="deflate"),
    "a page a band": lambda path, picture: pages(path, picture, compress="lzw"),
    "a page a band, tiles": lambda path, picture: pages(path, picture, **TILED, compress="deflate"),
    "a page a band, bigtiff": lambda path, picture: pages(path, picture, bigtiff="yes"),
    "1x1x3xHxW of ImageJ": lambda path, picture: hyperstack(path, picture, imagej=True),
    "1x1x3xHxW plain": lambda path, picture: hyperstack(path, picture, photometric="minisblack"),
    "1x1x3xHxW planar": lambda path, picture: hyperstack(path, picture, photometric="rgb", planarconfig="separate"),
    "rgba": lambda path, picture: gtiff(path, with_alpha(picture), **PIXEL, photometric="rgb", alpha="yes"),
    "rgba planar": lambda path, picture: gtiff(path, with_alpha(picture), **PLANAR, photometric="rgb", alpha="yes"),
    "rgba a page a band": lambda path, picture: pages(path, with_alpha(picture)),
}
"""Layouts that keep every pixel."""


@pytest.fixture(scope="session")
def picture() -> Picture:
    """An RGB picture with tissue-like blobs, sharp lines and noise, of odd size."""
    random = np.random.default_rng(7)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    waves = 40 * np.sin(rows / 23) * np.cos(columns / 31)
    channels = [180 + waves, 120 - waves, 160 + 0.5 * waves]
    drawn = np.stack(channels, axis=2) + random.normal(0, 12, (HEIGHT, WIDTH, 3))
    drawn[100:103] = 0
    drawn[:, 200] = 255
    return np.clip(drawn, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def draw() -> Draw:
    """Draw a picture in one of LAYOUTS."""
    return lambda name, picture, folder: LAYOUTS[name](folder / "slide.tiff", picture)


@pytest.fixture(scope="session")
def write_gtiff() -> Callable[..., Path]:
    """Write (H, W, C) with GDAL's creation options."""
    return gtiff


@pytest.fixture(scope="session")
def write_pyramid() -> Callable[..., Path]:
    """Write a tiled TIFF with reduced copies made by a resampling method."""
    return pyramid


@pytest.fixture(scope="session")
def write_ome_pyramid() -> Callable[..., Path]:
    """Write a pyramid into sub-directories."""
    return ome_pyramid


@pytest.fixture(scope="session")
def write_levels() -> Callable[..., Path]:
    """Write a picture and its reduced copies."""
    return levels_of


@pytest.fixture(scope="session")
def write_page_levels() -> Callable[..., Path]:
    """Write one page a band with reduced copies of each."""
    return page_levels_of


@pytest.fixture(scope="session")
def naive() -> Callable[..., Picture]:
    """Area-averaged reduction, pixel by pixel, as one would write it on paper."""

    def overlap(index: int, scale: float, length: int) -> NDArray[np.float64]:
        low, high = index * scale, min((index + 1) * scale, length)
        return np.clip(np.minimum(np.arange(length) + 1.0, high) - np.maximum(np.arange(length), low), 0, None)

    def reduce(image: Picture, scale: float, highest: int = 255) -> Picture:
        height, width = image.shape[:2]
        sizes = [int(np.ceil(side / scale - 1e-9)) for side in (height, width)]
        rows = np.stack([overlap(index, scale, height) for index in range(sizes[0])])
        columns = np.stack([overlap(index, scale, width) for index in range(sizes[1])])
        rows /= rows.sum(axis=1, keepdims=True)
        columns /= columns.sum(axis=1, keepdims=True)
        return np.einsum("ij,jkc,lk->ilc", rows, image.astype(np.float64), columns, optimize=True) * 255 / highest

    return reduce


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that take `layout` run for every one."""
    if "layout" in metafunc.fixturenames:
        metafunc.parametrize("layout", list(LAYOUTS))
