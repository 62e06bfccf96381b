"""Formats of scanner makers: a clear line without openslide, and the same reader with it.

It is imitated here, as it is an extra (requirements-slides.txt); where it is installed, it is asked itself, too.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image

from histofold import slides
from histofold.errors import DataError
from histofold.slides import foreign

Picture = NDArray[np.uint8]


class FakeOpenSlideError(Exception):
    """What openslide raises."""


def fake_openslide(picture: Picture) -> types.ModuleType:
    """A module with openslide's interface over one picture with a level of factor 4; its right edge is not scanned."""
    height, width = (side // 4 * 4 for side in picture.shape[:2])
    picture = picture[:height, :width]
    small = picture.reshape(height // 4, 4, width // 4, 4, 3).mean(axis=(1, 3)) + 0.5
    levels = [picture, small.astype(np.uint8)]
    regions: list[tuple[int, int]] = []
    told: dict[str, str] = {}

    class OpenSlide:
        def __init__(self, path: str) -> None:
            self.torn = Path(path).read_bytes() == b"a torn scan"
            if not self.torn and Path(path).read_bytes() != b"a scan":
                raise FakeOpenSlideError("Unsupported or missing image file")
            self.dimensions = (width, height)
            self.level_count = 2
            self.level_dimensions = [level.shape[1::-1] for level in levels]
            self.level_downsamples = [1.0, 4.0]
            self.properties = {"openslide.level[0].tile-height": "16", "openslide.level[0].tile-width": "16", **told}
            self.cache = 32 << 20

        def set_cache(self, cache: int) -> None:
            self.cache = cache

        def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
            regions.append(size)
            x, y = (start // (1, 4)[level] for start in location)
            if y >= height - 30 and self.torn:
                raise FakeOpenSlideError("Corrupt tile")
            part = levels[level][y : y + size[1], x : x + size[0]]
            alpha = np.full((*part.shape[:2], 1), 255, np.uint8)
            alpha[:, max(0, levels[level].shape[1] - 8 - x) :] = 0
            return Image.fromarray(np.concatenate([part, alpha], axis=2))

        def __enter__(self) -> OpenSlide:
            return self

        def __exit__(self, *error: object) -> None:
            self.close()

        def close(self) -> None:
            pass

    module = types.ModuleType("openslide")
    module.OpenSlide = OpenSlide  # type: ignore[attr-defined]
    module.OpenSlideError = FakeOpenSlideError  # type: ignore[attr-defined]
    module.OpenSlideVersionError = FakeOpenSlideError  # type: ignore[attr-defined]
    module.OpenSlideCache = int  # type: ignore[attr-defined]
    module.regions = regions  # type: ignore[attr-defined]
    module.told = told  # type: ignore[attr-defined]
    return module


@pytest.fixture
def scan(picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(sys.modules, "openslide", fake_openslide(picture))
    path = tmp_path / "scan.SVS"
    path.write_bytes(b"a scan")
    return path


def test_without_openslide_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    path = tmp_path / "scan.svs"
    path.write_bytes(b"a scan")
    with pytest.raises(DataError, match=r"scan.svs: .svs slides need openslide.*pip install openslide-python"):
        slides.open(path)


@pytest.mark.parametrize(("content", "expected"), [(None, "no such file"), (b"text", "openslide cannot read it")])
def test_a_missing_or_broken_scan_is_named(scan: Path, content: bytes | None, expected: str) -> None:
    path = scan.with_name("other.ndpi")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"other.ndpi: {expected}"):
        slides.open(path)


def test_a_scan_is_read_like_any_slide(scan: Path, picture: Picture, naive: Callable[..., Picture]) -> None:
    with slides.open(scan) as slide:
        assert (slide.height, slide.width, slide.factors) == (300, 416, [1, 4])
        np.testing.assert_array_equal(slide.window(10, 20, 100, 200), picture[10:110, 20:220])
        bands = [rows for _, rows in slide.bands(20, 4)]
        whole = np.concatenate(bands)
        assert whole.shape == (75, 104, 3)
        assert np.abs(whole[:, :90] - naive(picture[:300, :416], 4)[:, :90]).max() <= 1.01
        # What the scanner left out is white, like glass.
        assert (slide.window(0, 410, 20, 6) == 255).all()


def told_bounds(y: object, x: object, height: object, width: object) -> None:
    """Let the imitated file say where on its canvas the scan is."""
    places = {"y": y, "x": x, "height": height, "width": width}
    sys.modules["openslide"].told.update({f"openslide.bounds-{key}": str(value) for key, value in places.items()})


@pytest.mark.parametrize("bounds", [(20, 40, 200, 300), (20, 40, 203, 302), (20, 40, 280, 376), (21, 42, 199, 301)])
def test_a_scan_on_a_larger_canvas_is_read_from_its_own_corner(
    scan: Path, picture: Picture, naive: Callable[..., Picture], bounds: tuple[int, int, int, int]
) -> None:
    told_bounds(*bounds)
    y, x, height, width = bounds
    white = picture[:300, :416].copy()
    white[:, 408:] = 255
    part = white[y : y + height, x : x + width]
    with slides.open(scan) as slide:
        assert (slide.height, slide.width) == (height, width)
        # A level whose pixels begin beside the corner would shift everything.
        assert slide.factors == ([1, 4] if y % 4 == x % 4 == 0 else [1])
        np.testing.assert_array_equal(slide.window(0, 0, height, width), part)
        np.testing.assert_array_equal(slide.window(30, 20, 100, 200), part[30:130, 20:220])
        whole = np.concatenate([rows for _, rows in slide.bands(20, 4)])
        expected = naive(part, 4)
        assert whole.shape == expected.shape
        assert np.abs(whole.astype(int) - expected)[:, :90].max() <= 1
        with pytest.raises(DataError, match="reaches outside the slide"):
            slide.window(0, 0, height + 1, width)


@pytest.mark.parametrize(
    "bounds",
    [("", 40, 200, 300), (20.5, 40, 200, 300), (-4, 40, 200, 300), (20, 40, 0, 300), (300, 40, 9, 9)],
)
def test_bounds_that_make_no_sense_are_as_if_they_were_not_there(scan: Path, bounds: tuple[object, ...]) -> None:
    told_bounds(*bounds)
    with slides.open(scan) as slide:
        assert (slide.height, slide.width, slide.factors) == (300, 416, [1, 4])


def test_a_scan_that_reaches_beyond_its_canvas_ends_there_and_keeps_its_corner(scan: Path, picture: Picture) -> None:
    told_bounds(20, 40, 281, 999)
    with slides.open(scan) as slide:
        assert (slide.height, slide.width) == (280, 376)
        np.testing.assert_array_equal(slide.window(0, 0, 280, 300), picture[20:300, 40:340])


def test_half_told_bounds_are_as_if_they_were_not_there(scan: Path) -> None:
    told_bounds(20, 40, 200, 300)
    del sys.modules["openslide"].told["openslide.bounds-width"]
    with slides.open(scan) as slide:
        assert (slide.height, slide.width) == (300, 416)


def test_tiles_are_decoded_once_where_a_scan_begins_within_one(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told_bounds(20, 40, 200, 300)
    monkeypatch.setattr("histofold.slides.slide.CHUNK_BYTES", 1)
    with slides.open(scan) as slide:
        list(slide.bands(50))
    rows = [height for _, height in sys.modules["openslide"].regions]
    assert sorted(rows) == [12, 12, *[16] * 11], "rows 20 to 220 of the file: tiles end at 32, 48, …, 208"


def test_a_scan_is_decoded_in_pieces_that_the_plan_counts(
    scan: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "PIECE", 40)
    regions = sys.modules["openslide"].regions
    with slides.open(scan, threads=1) as slide:
        window = slide.window(10, 20, 100, 200)
        np.testing.assert_array_equal(window, picture[10:110, 20:220])
        # Whole tiles of 16, as many as 40 columns hold, so that no tile is decoded twice.
        assert max(width for width, _ in regions) == 32
        assert max(height for _, height in regions) == 16
        with slides.open(scan, threads=3) as three:
            assert three.memory(1) - slide.memory(1) > 2 * foreign.CACHE_BYTES


def test_half_transparent_pixels_are_blended_with_white_and_opaque_ones_kept() -> None:
    random = np.random.default_rng(0)
    rgba = random.integers(0, 256, (7, 9, 4), np.uint8)
    out = np.empty((3, 7, 9), np.uint8)
    foreign._blend(rgba, out)
    alpha = rgba[:, :, 3:] / 255
    expected = np.floor(rgba[:, :, :3] * alpha + 255 * (1 - alpha) + 0.499)
    assert np.abs(out.transpose(1, 2, 0) - expected).max() <= 1
    rgba[:, :, 3] = 255
    foreign._blend(rgba, out)
    np.testing.assert_array_equal(out.transpose(1, 2, 0), rgba[:, :, :3])


def test_damage_within_a_scan_is_named_with_its_rows(scan: Path) -> None:
    scan.write_bytes(b"a torn scan")
    with slides.open(scan) as slide, pytest.raises(DataError, match=r"scan.SVS: rows 280 to 288 cannot be decoded"):
        slide.window(280, 0, 20, 50)


@pytest.mark.parametrize("scale", [1, 1.5, 2, 3])
def test_openslide_itself_gives_the_pixels_of_the_tiff(picture: Picture, tmp_path: Path, scale: float) -> None:
    pytest.importorskip("openslide")
    height, width = picture.shape[:2]
    path, scan = tmp_path / "slide.tif", tmp_path / "slide.svs"
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=3, dtype="uint8", tiled=True, blockxsize=64,
        blockysize=64, photometric="RGB", compress="deflate",
    ) as file:  # fmt: skip
        file.write(picture.transpose(2, 0, 1))
    scan.write_bytes(path.read_bytes())
    with slides.open(path) as plain, slides.open(scan) as scanned:
        assert (scanned.height, scanned.width) == (height, width)
        window = (7, 11, height // 2, width // 2, scale)
        assert np.array_equal(plain.window(*window), scanned.window(*window))
