"""Every layout gives the same pixels, in windows and in bands, at any reduction."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from histofold import slides
from histofold.errors import DataError
from histofold.slides import tiff
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


@pytest.mark.parametrize("cut", [(0, 0), (0, 1), (1, 0), (1, 5), (3, 7), (7, 1), (4, 4)])
@pytest.mark.parametrize("smooth", [True, False])
def test_a_stretched_pyramid_is_used_where_the_factor_divides_the_sides_only(
    cut: tuple[int, int], smooth: bool, picture: Picture, write_pyramid: Callable[..., Path],
    naive: Callable[..., Picture], tmp_path: Path,
) -> None:  # fmt: skip
    """GDAL stretches a level over the whole side, so that its pixels drift where it is no whole number of theirs."""
    drawn = np.tile(picture[:296, :416], (3, 2, 1))
    drawn = drawn[: 888 - cut[0], : 832 - cut[1]]
    if smooth:
        drawn = cv2.GaussianBlur(drawn, (0, 0), 6)
    with slides.open(write_pyramid(tmp_path / "pyramid.tiff", drawn, "average")) as slide:
        assert slide.factors == [1, 2, 4, 8]
        for scale in (2, 4, 8):
            exact = all(side % scale == 0 for side in drawn.shape[:2])
            whole = ((0, slide.height), (0, slide.width))
            assert (slide._level(rational(scale), *whole).factor == scale) == exact
            window = slide.window(0, 0, slide.height, slide.width, scale)
            assert np.abs(window - naive(drawn, scale)).max() <= 2.01


@pytest.mark.parametrize("partial", ["left out", "averaged", "black"])
@pytest.mark.parametrize("cut", [(1, 0), (1, 5), (3, 7), (7, 1)])
def test_a_pyramid_of_whole_cells_is_used_at_any_size(
    partial: str, cut: tuple[int, int], picture: Picture, write_levels: Callable[..., Path],
    naive: Callable[..., Picture], tmp_path: Path,
) -> None:  # fmt: skip
    """Levels of factor × factor pixels; what is left at the end of a side is missing, averaged, or mixed with black."""
    drawn = picture[: 296 - cut[0], : 416 - cut[1]]
    factors = (2, 4, 8)
    levels = []
    for factor in factors:
        height, width = (side // factor if partial == "left out" else -(-side // factor) for side in drawn.shape[:2])
        average = naive(drawn, factor)[:height, :width]
        if partial == "black":
            padded = np.zeros((height * factor, width * factor, 3))
            padded[: len(drawn), : drawn.shape[1]] = drawn
            average = naive(padded, factor)
        levels.append(np.floor(average + 0.5).astype(np.uint8))
    with slides.open(write_levels(tmp_path / "pyramid.tiff", drawn, levels)) as slide:
        assert slide.factors == [1, 2, 4, 8]
        for scale in (2, 4, 8, 16):
            window = slide.window(0, 0, slide.height, slide.width, scale)
            assert np.abs(window - naive(drawn, scale)).max() <= 1.01
            np.testing.assert_array_equal(np.concatenate([rows for _, rows in slide.bands(7, scale)]), window)
            used = slide._level(rational(scale), (0, slide.height), (0, slide.width)).factor
            assert (used > 1) == (partial != "black" or all(side % min(scale, 8) == 0 for side in drawn.shape[:2]))


@pytest.mark.parametrize("pages", ["rgb", "grey", "planes"])
def test_the_picture_is_the_largest_page_and_not_a_thumbnail_before_it(
    pages: str, picture: Picture, tmp_path: Path
) -> None:
    shown = picture if pages != "grey" else picture[:, :, :1].repeat(3, axis=2)
    path = tmp_path / "thumbnail.tiff"
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture[::20, ::20], photometric="rgb")
        if pages == "rgb":
            writer.write(picture, photometric="rgb", tile=(64, 64), compression="zlib")
        for band in range({"rgb": 0, "grey": 1, "planes": 3}[pages]):
            writer.write(picture[:, :, band], photometric="minisblack")
        writer.write(picture[::30, ::30], photometric="rgb")
    with slides.open(path) as slide:
        assert (slide.height, slide.width) == picture.shape[:2]
        np.testing.assert_array_equal(slide.window(0, 0, *picture.shape[:2]), shown)


def test_the_pyramid_of_a_later_page_is_its_own(picture: Picture, tmp_path: Path) -> None:
    half = picture[:300, :416].reshape(150, 2, 208, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    path = tmp_path / "thumbnail.tiff"
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture[::20, ::20], photometric="rgb")
        writer.write(picture[:300, :416], photometric="rgb", subifds=1)
        writer.write(half, photometric="rgb", subfiletype=1)
    with slides.open(path) as slide:
        assert slide.factors == [1, 2]
        np.testing.assert_array_equal(slide.window(0, 0, 300, 416, 2), half)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_grey_whose_zero_is_white_is_turned_round(kind: type[np.unsignedinteger[Any]], tmp_path: Path) -> None:
    grey = (np.arange(600).reshape(20, 30) % 256).astype(kind) * kind(1 if kind is np.uint8 else 257)
    path = tmp_path / "white.tiff"
    tifffile.imwrite(path, grey, photometric="miniswhite")
    with slides.open(path) as slide:
        expected = (255 - np.arange(600).reshape(20, 30) % 256)[:, :, None].repeat(3, axis=2)
        np.testing.assert_array_equal(slide.window(0, 0, 20, 30), expected)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_one_bit_is_black_and_white(photometric: str, tmp_path: Path) -> None:
    bits = np.random.default_rng(0).random((33, 47)) < 0.4
    path = tmp_path / "bits.tiff"
    tifffile.imwrite(path, bits, photometric=photometric)
    with slides.open(path) as slide:
        expected = np.where(bits == (photometric == "minisblack"), 255, 0)[:, :, None].repeat(3, axis=2)
        np.testing.assert_array_equal(slide.window(0, 0, 33, 47), expected)


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
        # One more than the level has: the last row and column are those of the full size.
        assert window.shape == (76, 105, 3)
        assert np.abs(window - naive(picture, 4)).max() <= 1.01
        np.testing.assert_array_equal(np.concatenate([rows for _, rows in slide.bands(20, 4)]), window)


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


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
def test_a_stack_of_pictures_in_colour_is_refused(kind: type[np.generic], planarconfig: str, tmp_path: Path) -> None:
    """Of which the first was read without a word."""
    path = tmp_path / "stack.tiff"
    with tifffile.TiffWriter(path) as writer:
        for level in range(4):
            shape = (20, 30, 3) if planarconfig == "contig" else (3, 20, 30)
            writer.write(np.full(shape, level, kind), photometric="rgb", planarconfig=planarconfig, metadata=None)
    with pytest.raises(DataError, match=r"stack\.tiff: 4 pages of 20 × 30 pixels in colour.*save the one that is"):
        slides.open(path)


def test_a_picture_beside_smaller_ones_is_read(picture: Picture, tmp_path: Path) -> None:
    """As scanners do: a thumbnail, levels as pages, a label and a macro image of one size."""
    path = tmp_path / "scan.tiff"
    with tifffile.TiffWriter(path) as writer:
        for page in (picture, picture[::9, ::9], picture[::2, ::2], picture[:40, :50], picture[:40, :50]):
            writer.write(page, photometric="rgb", tile=(64, 64), metadata=None)
    with slides.open(path) as slide:
        np.testing.assert_array_equal(slide.window(0, 0, *picture.shape[:2]), picture)


@pytest.mark.parametrize("big", [False, True])
def test_a_directory_that_claims_more_than_the_file_has_asks_for_no_memory(
    big: bool, picture: Picture, write_gtiff: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_gtiff(tmp_path / "hurt.tiff", picture, bigtiff="yes" if big else "no", blockysize=8)
    content = bytearray(path.read_bytes())
    place = content.rindex(struct.pack("<H", tiff.STRIP_BYTES))
    # The count of strip sizes: thousands of gigabytes, which a BigTIFF could have, or four.
    content[place + 4 : place + (12 if big else 8)] = struct.pack("<Q", 1 << 42) if big else struct.pack("<I", 1 << 31)
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"hurt.tiff: the TIFF is truncated or damaged"):
        tiff.require_whole(path)


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


def test_a_stack_of_imagej_in_one_page_is_no_grey_picture(tmp_path: Path, picture: Picture) -> None:
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1))[None, None]
    tifffile.imwrite(tmp_path / "s.tif", planes, imagej=True, metadata={"axes": "TZCYX"}, truncate=True)
    with pytest.raises(DataError, match=r"s\.tif: 3 pictures, .* in one page, of which only the first can be read"):
        slides.open(tmp_path / "s.tif")
    tifffile.imwrite(tmp_path / "grey.tif", picture[..., 0], imagej=True)
    with slides.open(tmp_path / "grey.tif") as slide:
        np.testing.assert_array_equal(slide.window(0, 0, 9, 9)[..., 0], picture[:9, :9, 0])
