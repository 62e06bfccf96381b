"""Images of 16 bits a sample: the bits that they really have, in PNG and in TIFF alike."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from histofold import slides
from histofold.competitions import images
from histofold.errors import DataError
from histofold.slides import depth

Deep = NDArray[np.uint16]


def saved(path: Path, samples: Deep) -> Path:
    """Save (H, W), or (H, W, 3) RGB."""
    cv2.imwrite(str(path), samples if samples.ndim == 2 else samples[..., ::-1])
    return path


def drawn(largest: int, *more: int) -> Deep:
    samples = np.random.default_rng(0).integers(0, largest + 1, (40, 52, *more)).astype(np.uint16)
    samples[0, 0] = largest
    return samples


@pytest.mark.parametrize(
    ("largest", "ceiling"), [(255, 255), (256, 4095), (4095, 4095), (4096, 65535), (65535, 65535)]
)
@pytest.mark.parametrize("colours", [(), (3,)])
def test_png_and_tiff_use_the_bits_that_there_are(
    tmp_path: Path, largest: int, ceiling: int, colours: tuple[int, ...]
) -> None:
    samples = drawn(largest, *colours)
    expected = np.floor(samples * (255 / ceiling) + 0.5 + 1e-9)
    expected = expected if colours else np.repeat(expected[..., None], 3, axis=2)
    for suffix in (".png", ".tif"):
        np.testing.assert_array_equal(images.rgb(saved(tmp_path / f"x{suffix}", samples)), expected, suffix)
    assert len(np.unique(expected)) > 250 or largest in (256, 4096)


def test_slides_round_as_images_do(tmp_path: Path) -> None:
    samples = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    path = saved(tmp_path / "x.tif", samples)
    with slides.open(path) as slide:
        np.testing.assert_array_equal(slide.window(0, 0, 256, 256)[..., 0], depth.to_bytes(samples, 65535))
    np.testing.assert_array_equal(images.rgb(path)[..., 0], depth.to_bytes(samples, 65535))


def test_a_slide_has_the_bits_that_its_tag_says(tmp_path: Path) -> None:
    samples = drawn(4000)
    samples[1, 1] = 5000  # belies the tag
    path = tmp_path / "x.tif"
    tags = {"TIFFTAG_MAXSAMPLEVALUE": "4000"}
    with rasterio.open(path, "w", driver="GTiff", height=40, width=52, count=1, dtype="uint16") as target:
        target.write(samples[None])
        target.update_tags(**tags)
    expected = depth.to_bytes(np.minimum(samples, 4095), 4095)
    with slides.open(path) as slide:
        np.testing.assert_array_equal(slide.window(0, 0, 40, 52)[..., 1], expected)
    np.testing.assert_array_equal(images.rgb(path)[..., 1], expected)


def test_a_deep_png_with_alpha_and_one_cut_short(tmp_path: Path) -> None:
    samples = drawn(4095, 4)
    samples[..., 3] = 65535  # alpha says nothing of the bits
    path = tmp_path / "x.png"
    cv2.imwrite(str(path), samples)
    np.testing.assert_array_equal(images.rgb(path), depth.to_bytes(samples[..., 2::-1], 4095))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"x\.png: not a whole image"):
        images.rgb(path)
