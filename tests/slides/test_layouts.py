"""Every layout gives the same pixels, in windows and in bands, at any reduction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from histofold import slides
from histofold.errors import DataError
from histofold.tiles.grid import rational

Picture = NDArray[np.uint8]


def test_every_layout_gives_the_pixels_that_were_written(
    layout: str, picture: Picture, draw: Callable[..., Path], naive: Callable[..., Picture], tmp_path: Path
) -> None:
    with slides.open(draw(layout, picture, tmp_path)) as slide:
        assert (slide.height, slide.width) == picture.shape[:2]
        np.testing.assert_array_equal(slide.window(0, 0, slide.height, slide.width), picture)
        np.testing.assert_array_equal(slide.window(290, 400, 11, 17), picture[290:301, 400:417])
        np.testing.assert_array_equal(np.concatenate([rows for _, rows in slide.bands(50)]), picture)
        for scale in (1.5, 3, 4):
            rows = np.concatenate([rows for _, rows in slide.bands(20, scale)])
            # All layouts share the reference, so they are equal to each other.
            np.testing.assert_array_equal(rows, np.floor(naive(picture, scale) + 0.5 + 1e-9))


def test_sixteen_bits_become_eight(
    picture: Picture, write_gtiff: Callable[..., Path], naive: Callable[..., Picture], tmp_path: Path
) -> None:
    deep = picture.astype(np.uint16) * 257 - np.uint16(100) * (picture > 0)
    path = write_gtiff(tmp_path / "deep.tiff", deep, compress="deflate")
    with slides.open(path) as slide:
        for scale in (1, 1.5, 4):
            window = slide.window(0, 0, slide.height, slide.width, scale)
            np.testing.assert_array_equal(window, np.floor(naive(deep, scale, 65535) + 0.5 + 1e-9))


def test_twelve_bits_in_sixteen_use_their_own_range(write_gtiff: Callable[..., Path], tmp_path: Path) -> None:
    deep = np.full((20, 20, 3), 4095, np.uint16)
    deep[:10] = 0
    with slides.open(write_gtiff(tmp_path / "twelve.tiff", deep, nbits=12)) as slide:
        assert np.unique(slide.window(0, 0, 20, 20)).tolist() == [0, 255]


def test_grey_is_given_as_rgb(picture: Picture, write_gtiff: Callable[..., Path], tmp_path: Path) -> None:
    with slides.open(write_gtiff(tmp_path / "grey.tiff", picture[:, :, :1])) as slide:
        np.testing.assert_array_equal(slide.window(5, 5, 50, 60), np.repeat(picture[5:55, 5:65, :1], 3, axis=2))


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "ycbcr", "tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "pixel"},
        {"photometric": "rgb", "tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "pixel"},
        {"photometric": "ycbcr", "blockysize": 32, "interleave": "pixel"},
        {"photometric": "rgb", "interleave": "band"},
    ],
)
def test_jpeg_is_close_and_bands_equal_windows(
    options: dict[str, Any], write_gtiff: Callable[..., Path], tmp_path: Path
) -> None:
    rows, columns = np.mgrid[:256, :320]
    smooth = np.stack([128 + 90 * np.sin(rows / 40), 128 + 90 * np.cos(columns / 50), 60 + rows / 4], axis=2)
    smooth = np.broadcast_to(smooth, (256, 320, 3)).astype(np.uint8)
    path = write_gtiff(tmp_path / "photo.tiff", smooth, compress="jpeg", jpeg_quality=95, **options)
    with slides.open(path) as slide:
        whole = slide.window(0, 0, 256, 320)
        assert np.abs(whole.astype(int) - smooth).mean() < 2.5
        np.testing.assert_array_equal(np.concatenate([rows for _, rows in slide.bands(33)]), whole)


@pytest.mark.parametrize("resampling", ["average", "nearest"])
def test_a_pyramid_is_used_if_it_was_averaged_and_not_if_it_was_picked(
    resampling: str, picture: Picture, write_pyramid: Callable[..., Path], naive: Callable[..., Picture], tmp_path: Path
) -> None:
    path = write_pyramid(tmp_path / "pyramid.tiff", picture[:296, :416], resampling, compress="deflate")
    with slides.open(path) as slide:
        assert slide.factors == [1, 2, 4, 8]
        for scale in (2, 3, 4, 6, 6.5, 16):
            window = slide.window(0, 0, slide.height, slide.width, scale)
            # Each level was made from the one above and rounded: half a grey value for each of three, and the result.
            assert np.abs(window - naive(picture[:296, :416], scale)).max() <= 2.01
            np.testing.assert_array_equal(np.concatenate([rows for _, rows in slide.bands(20, scale)]), window)
        whole = ((0, slide.height), (0, slide.width))
        used = [slide._level(rational(scale), *whole).factor for scale in (2, 3, 4, 6, 6.5, 16)]
        assert used == ([2, 1, 4, 2, 1, 8] if resampling == "average" else [1] * 6)


@pytest.mark.parametrize("window", [(4, 8, 100, 92), (4, 8, 292, 408), (5, 8, 100, 92), (4, 7, 99, 90), (4, 8, 97, 92)])
def test_a_window_of_a_pyramid_may_begin_and_end_anywhere(
    window: tuple[int, int, int, int],
    picture: Picture,
    write_pyramid: Callable[..., Path],
    naive: Callable[..., Picture],
    tmp_path: Path,
) -> None:
    y, x, height, width = window
    with slides.open(write_pyramid(tmp_path / "pyramid.tiff", picture[:296, :416], "average")) as slide:
        read = slide.window(y, x, height, width, 4)
        assert np.abs(read - naive(picture[y : y + height, x : x + width], 4)).max() <= 1.51


def test_a_pyramid_in_sub_directories_is_found(
    picture: Picture, write_ome_pyramid: Callable[..., Path], naive: Callable[..., Picture], tmp_path: Path
) -> None:
    with slides.open(write_ome_pyramid(tmp_path / "slide.ome.tiff", picture)) as slide:
        assert slide.factors == [1, 2, 4]
        assert slide._level(rational(4), (0, 301), (0, 417)).height == 75
        window = slide.window(0, 0, 301, 417, 4)
        assert window.shape == (76, 105, 3)  # one more than the level has: its last row and column are repeated
        assert np.abs(window[:75, :104] - naive(picture, 4)[:75, :104]).max() <= 1.01
        np.testing.assert_array_equal(window[75], window[74])


def test_a_thumbnail_comes_from_the_pyramid(
    picture: Picture, write_pyramid: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_pyramid(tmp_path / "pyramid.tiff", picture[:296, :416], "average")
    small, scale = slides.thumbnail(path, 45)
    assert (scale, small.shape) == (16, (19, 26, 3))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path, write: write(path, np.zeros((20, 20, 5), np.uint8)), "5 bands"),
        (lambda path, write: write(path, np.zeros((20, 20, 3), np.float32)), "float32"),
        (lambda path, write: write(path, np.zeros((20, 20, 3), np.int16)), "int16"),
        (lambda path, write: path.write_bytes(b""), "empty"),
        (lambda path, write: path.write_bytes(b"\x89PNG\r\n\x1a\nnothing"), "not a TIFF"),
        (lambda path, write: path.write_bytes(b"II*\0\x08\0\0\0"), "damaged"),
        (lambda path, write: path.mkdir(), "no such file"),
        (lambda path, write: None, "no such file"),
    ],
)
def test_foreign_files_are_named_in_one_line(
    make: Callable[..., Any], expected: str, write_gtiff: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "strange.tiff"
    make(path, write_gtiff)
    with pytest.raises(DataError) as error:
        slides.open(path)
    assert str(error.value).startswith(str(path))
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_palettes_and_odd_page_counts_are_refused(write_gtiff: Callable[..., Path], tmp_path: Path) -> None:
    import rasterio

    path = write_gtiff(tmp_path / "palette.tiff", np.zeros((20, 20, 1), np.uint8), photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {0: (255, 0, 0, 255)})
    with pytest.raises(DataError, match="palette"):
        slides.open(path)
    two = tmp_path / "two.tiff"
    write_gtiff(two, np.zeros((20, 20, 1), np.uint8))
    write_gtiff(two, np.zeros((20, 20, 1), np.uint8), append_subdataset="yes")
    with pytest.raises(DataError, match="2 pages of one band"):
        slides.open(two)


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.7, 0.999])
def test_a_truncated_slide_is_named_before_anything_is_read(
    layout: str, keep: float, picture: Picture, draw: Callable[..., Path], tmp_path: Path
) -> None:
    path = draw(layout, picture, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DataError, match="truncated") as error:
        slides.open(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("compress", ["lzw", "jpeg"])
def test_damage_inside_is_named_with_its_rows(
    compress: str, picture: Picture, write_gtiff: Callable[..., Path], tmp_path: Path
) -> None:
    # Deflate and raw pixels carry no check that GDAL looks at: what is overwritten there is read as it stands.
    path = write_gtiff(tmp_path / "hurt.tiff", picture, compress=compress, blockysize=16, interleave="pixel")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    path.write_bytes(bytes(content))
    message = r"hurt.tiff: rows \d+ to \d+ cannot be decoded"
    with slides.open(path) as slide, pytest.raises(DataError, match=message):
        list(slide.bands(64))
