"""Pyramids of pictures with one page a band: each page has its own, and a level counts only if all of them have it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from histofold import slides
from histofold.tiles.grid import rational

Picture = NDArray[np.uint8]


@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize("pages", [3, 4])
def test_the_pyramid_of_a_page_a_band_is_used_if_it_was_averaged(
    averaged: bool, pages: int, picture: Picture, write_page_levels: Callable[..., Path],
    naive: Callable[..., Picture], tmp_path: Path,
) -> None:  # fmt: skip
    drawn = np.concatenate([picture, picture[:, :, :1]], axis=2)[:296, :416, :pages]
    levels = []
    for band in range(pages):
        page = drawn[:, :, band : band + 1]
        averages = [np.floor(naive(page, factor)[:, :, 0] + 0.5).astype(np.uint8) for factor in (2, 4)]
        levels.append(averages if averaged else [page[::2, ::2, 0], page[::4, ::4, 0]])
    with slides.open(write_page_levels(tmp_path / "pages.tiff", drawn, levels)) as slide:
        assert slide.factors == [1, 2, 4]
        whole = ((0, slide.height), (0, slide.width))
        np.testing.assert_array_equal(slide.window(0, 0, 296, 416), drawn[:, :, :3])
        for scale, factor in ((2, 2), (4, 4), (6, 2), (8, 4)):
            window = slide.window(0, 0, slide.height, slide.width, scale)
            assert np.abs(window - naive(drawn[:, :, :3], scale)).max() <= 1.01
            np.testing.assert_array_equal(np.concatenate([rows for _, rows in slide.bands(20, scale)]), window)
            assert slide._level(rational(scale), *whole).factor == (factor if averaged else 1)


@pytest.mark.parametrize("fault", ["missing", "smaller", "of another band"])
def test_a_level_that_not_every_page_has_is_no_level(
    fault: str, picture: Picture, write_page_levels: Callable[..., Path], naive: Callable[..., Picture], tmp_path: Path
) -> None:
    drawn = picture[:296, :416]
    half = np.floor(naive(drawn, 2) + 0.5).astype(np.uint8)
    levels = [[half[:, :, band]] for band in range(3)]
    levels[1] = {"missing": [], "smaller": [half[:-1, :, 1]], "of another band": [half[:, :, 0]]}[fault]
    with slides.open(write_page_levels(tmp_path / "pages.tiff", drawn, levels)) as slide:
        assert slide.factors == ([1, 2] if fault == "of another band" else [1])
        np.testing.assert_array_equal(slide.window(0, 0, 296, 416, 2), np.floor(naive(drawn, 2) + 0.5 + 1e-9))


def test_reduced_pages_of_several_bands_are_not_taken_for_one_picture_s(picture: Picture, tmp_path: Path) -> None:
    """As pages beside the bands they belong to nothing, and GDAL lists all of them as the first page's."""
    half = picture[:296, :416].reshape(148, 2, 208, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    path = tmp_path / "pages.tiff"
    with tifffile.TiffWriter(path) as writer:
        for band in range(3):
            writer.write(picture[:296, :416, band], photometric="minisblack", tile=(64, 64))
            writer.write(half[:, :, band], photometric="minisblack", tile=(64, 64), subfiletype=1)
    with slides.open(path) as slide:
        assert slide.factors == [1]
        np.testing.assert_array_equal(slide.window(0, 0, 296, 416), picture[:296, :416])


def test_a_grey_picture_beside_a_thumbnail_has_its_pyramid(picture: Picture, tmp_path: Path) -> None:
    grey = picture[:296, :416, 0]
    half = grey.reshape(148, 2, 208, 2).mean(axis=(1, 3)).round().astype(np.uint8)
    path = tmp_path / "grey.tiff"
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture[::20, ::20, 0], photometric="minisblack")
        writer.write(grey, photometric="minisblack", tile=(64, 64), subifds=1)
        writer.write(half, photometric="minisblack", tile=(64, 64), subfiletype=1)
    with slides.open(path) as slide:
        assert slide.factors == [1, 2]
        np.testing.assert_array_equal(slide.window(0, 0, 296, 416, 2), half[:, :, None].repeat(3, axis=2))
