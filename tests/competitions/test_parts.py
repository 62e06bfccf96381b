"""The small parts: strict image files, CSV rows by offset, polygons as runs, merging of instances."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from histofold import rle
from histofold.competitions import images, instances, polygons
from histofold.competitions.rows import RowIndex
from histofold.errors import DataError


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.png"
    if mode == "I;16":
        PIL.Image.new(mode, (9, 7), 65535).save(path)
    else:
        white = PIL.Image.new("RGBA" if "A" in mode else "RGB", (9, 7), (255, 255, 255, 3)[: 4 if "A" in mode else 3])
        white.convert(mode).save(path)
    pixels = images.rgb(path)
    assert pixels.shape == (7, 9, 3)
    assert pixels.dtype == np.uint8
    assert pixels.min() == 255
    assert images.size(path) == (7, 9)


def test_palette_labels_keep_their_indices(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    image = image.convert("P")
    image.putpalette([200, 10, 30] * 256)
    image.save(tmp_path / "labels.bmp")
    assert images.integers(tmp_path / "labels.bmp").tolist() == np.arange(12).reshape(3, 4).tolist()


@pytest.mark.parametrize("name", ["gone.png", "text.png", "text.bmp", "gone.tif", "text.tif"])
def test_what_is_no_image(tmp_path: Path, name: str) -> None:
    if name.startswith("text"):
        (tmp_path / name).write_text("not an image")
    for read in (images.rgb, images.integers):
        with pytest.raises(DataError, match=name):
            read(tmp_path / name)


def test_rows_by_offset(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("\ufeffid,encoding\r\none,1 2\r\n\r\ntwo,\r\none,5 6\r\n".encode())
    index = RowIndex.of(path, ["id", "encoding"])
    assert index.ids() == ["one", "two"]
    assert index.rows("one") == [{"id": "one", "encoding": "1 2"}, {"id": "one", "encoding": "5 6"}]
    assert index.rows("two") == [{"id": "two", "encoding": ""}]
    assert index.rows("three") == []


def test_rows_longer_than_the_csv_modules_limit(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    text = " ".join(f"{4 * n + 1} 2" for n in range(50_000))
    path.write_text(f"id,encoding\na,{text}\n")
    assert RowIndex.of(path, ["id", "encoding"]).rows("a")[0]["encoding"] == text


def test_id_that_is_not_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('encoding,id\n"1 2",one\n')
    assert RowIndex.of(path, ["id", "encoding"]).rows("one") == [{"encoding": "1 2", "id": "one"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,encoding\n,1 2\n", "line 2: empty id"),
        ("id,encoding\na,1 2\na,3 4\n", "line 3: 'a' is there twice"),
        ("id,mask\na,1 2\n", "no column 'encoding'"),
        ("", "no column 'id'"),
    ],
)
def test_rows_that_do_not_fit(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        RowIndex.of(path, ["id", "encoding"], unique=True)


def test_a_row_with_too_few_fields(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("id,encoding\na\n")
    with pytest.raises(DataError, match="line 2: 1 fields where the header has 2"):
        RowIndex.of(path, ["id", "encoding"]).rows("a")


corner = st.integers(-8, 40)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.tuples(corner, corner), min_size=3, max_size=7), max_size=5))
def test_polygons_as_runs_equal_painted_polygons(outlines: list[list[tuple[int, int]]]) -> None:
    shape = (29, 33)
    rings = [np.array(points, np.int32) for points in outlines]
    expected = np.zeros(shape, np.uint8)
    for ring in rings:
        # Painted on a larger canvas: OpenCV's own clipping moves outlines that cross the edge.
        canvas = np.zeros((70, 70), np.uint8)
        cv2.fillPoly(canvas, [ring + 20], 1)
        expected |= canvas[20 : 20 + shape[0], 20 : 20 + shape[1]]
    text = polygons.runs([[ring] for ring in rings], *shape)
    assert np.array_equal(rle.decode(text, shape), expected)


def test_polygon_with_a_hole() -> None:
    outer = np.array([[1, 1], [9, 1], [9, 9], [1, 9]], np.int32)
    hole = np.array([[4, 4], [6, 4], [6, 6], [4, 6]], np.int32)
    mask = rle.decode(polygons.runs([[outer, hole]], 12, 12), (12, 12))
    assert mask[2, 2] == 1
    assert mask[5, 5] == 0


def test_merge_of_equals_keeps_the_earlier() -> None:
    first, second = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    first[:2], second[1:3] = True, True
    labels = instances.merge([("a", first), ("b", second)], (4, 4))
    assert labels[:, 0].tolist() == [1, 1, 2, 0]


def test_merge_drops_empty_and_covered_masks() -> None:
    big, cover, empty = np.zeros((4, 4), bool), np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    big[0, :2] = True
    cover[0, 0] = True
    other = np.zeros((4, 4), bool)
    other[0, 1] = True
    labels = instances.merge([("a", big), ("b", empty), ("c", cover), ("d", other)], (4, 4))
    assert labels[0].tolist() == [1, 2, 0, 0]


@pytest.mark.parametrize(("count", "dtype"), [(0, np.uint8), (255, np.uint8), (256, np.uint16), (65536, np.uint32)])
def test_smallest_type(count: int, dtype: Any) -> None:
    assert instances.smallest(count) is dtype


@pytest.mark.parametrize("dtype", [np.uint32, np.int64, np.uint64])
def test_labels_with_numbers_larger_than_the_image_are_numbered_anew(dtype: Any) -> None:
    values = np.array([[0, 2**31 + 4, 7], [7, 2**31 + 4, 2**31 + 5]], dtype)
    labels = instances.checked(values, (2, 3), Path("x.tif"), Path("x.png"))
    assert labels.tolist() == [[0, 2, 1], [1, 2, 3]]
    assert labels.dtype == np.uint8
    full = instances.checked(np.where(values > 0, values, values.max() + 1), (2, 3), Path("x.tif"), Path("x.png"))
    assert full.tolist() == [[4, 2, 1], [1, 2, 3]], "an image without background"
    gaps = np.array([[0, 6, 2], [2, 6, 4]], dtype)
    assert np.array_equal(instances.checked(gaps, (2, 3), Path("x.tif"), Path("x.png")), gaps), "small numbers stay"


def test_negative_labels() -> None:
    with pytest.raises(DataError, match="negative labels"):
        instances.checked(np.full((2, 2), -1), (2, 2), Path("x.tif"), Path("x.png"))


@pytest.mark.parametrize("colours", [1, 2, 3, 4])
def test_numbers_of_16_bits_keep_their_lower_byte_in_colour_too(tmp_path: Path, colours: int) -> None:
    numbers = np.arange(300, 312, dtype=np.uint16).reshape(3, 4)
    stored = np.dstack([numbers] * (colours if colours in (1, 3) else colours - 1))
    if colours in (2, 4):
        stored = np.dstack([stored, np.full_like(numbers, 65535)])
    bits = {1: 0, 2: 4, 3: 2, 4: 6}[colours]
    (tmp_path / "x.png").write_bytes(deep_png(stored, bits))
    np.testing.assert_array_equal(images.integers(tmp_path / "x.png", single=True, exact=True), numbers)


def deep_png(samples: np.ndarray[Any, np.dtype[np.uint16]], colour_type: int) -> bytes:
    """A PNG of 16 bits, of any number of channels: neither Pillow nor OpenCV writes grey with alpha."""
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = samples.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("odd", [0.5, 1.9, np.nan, np.inf])
def test_numbers_that_are_not_whole_are_refused(tmp_path: Path, odd: float) -> None:
    path = tmp_path / "x.tif"
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    tifffile.imwrite(path, values)
    np.testing.assert_array_equal(images.integers(path), values)
    values[1, 1] = odd
    tifffile.imwrite(path, values)
    with pytest.raises(DataError, match=rf"x\.tif: holds {odd:g}, expected whole numbers.*save it with integers"):
        images.integers(path)


def test_label_tiffs_of_several_pages_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    pages = np.arange(2 * 8 * 12, dtype=np.uint16).reshape(2, 8, 12)
    tifffile.imwrite(path, pages, photometric="minisblack")
    with pytest.raises(DataError, match=r"x\.tif: 2 pages of 8 × 12 pixels, expected one; save all objects"):
        images.integers(path)
    with tifffile.TiffWriter(path) as writer:
        writer.write(pages[0], photometric="minisblack", subifds=1)
        writer.write(pages[0, ::2, ::2], photometric="minisblack", subfiletype=1)
        writer.write(pages[0, ::4, ::4], photometric="minisblack")
        writer.write(pages[0, ::2, ::2], photometric="minisblack", subfiletype=1)
    np.testing.assert_array_equal(images.integers(path), pages[0])
