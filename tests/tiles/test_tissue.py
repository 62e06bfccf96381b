"""What counts as tissue."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histofold.tiles.tissue import low_resolution, tissue_mask, tissue_share

DATA = Path(os.environ.get("HISTOFOLD_DATA", "absent"))


@given(red=st.integers(0, 255), green=st.integers(0, 255), blue=st.integers(0, 255))
def test_saturation_is_that_of_hsv(red: int, green: int, blue: int) -> None:
    pixel = np.array([[[red, green, blue]]], np.uint8)
    _, saturation, value = (int(v) for v in cv2.cvtColor(pixel, cv2.COLOR_RGB2HSV)[0, 0])
    if abs(saturation - 40) > 1:  # OpenCV rounds
        assert tissue_mask(pixel)[0, 0] == (saturation > 40 and value >= 25)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((242, 242, 242), False),
        ((255, 250, 240), False),
        ((190, 110, 170), True),
        ((0, 0, 0), False),
        ((8, 0, 3), False),
    ],
    ids=["glass", "warm glass", "stain", "black", "nearly black"],
)
def test_typical_colours(colour: tuple[int, int, int], expected: bool) -> None:
    assert tissue_mask(np.full((4, 4, 3), colour, np.uint8)).all() == expected


def test_coloured_noise_on_glass_is_no_tissue() -> None:
    random = np.random.default_rng(0)
    noisy = np.clip(random.normal(215, 30, (256, 256, 3)), 0, 255).astype(np.uint8)
    assert tissue_mask(noisy).mean() > 0.5
    assert tissue_share(noisy, 1.0) < 0.05


def test_low_resolution_keeps_the_field_of_a_pixel() -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    assert low_resolution(image, 1).shape == (16, 16, 3)
    assert low_resolution(image, 4).shape == (64, 64, 3)
    assert low_resolution(image, 16) is image
    assert low_resolution(image[:20, :20], 1).shape == (4, 4, 3)


def test_half_a_tile_of_tissue_is_half() -> None:
    image = np.full((256, 256, 3), 240, np.uint8)
    image[:128] = (190, 110, 170)
    assert tissue_share(image, 1) == pytest.approx(0.5)


@settings(deadline=None)
@given(
    height=st.integers(4, 70), width=st.integers(4, 70), scale=st.sampled_from([1, 1.5, 4, 16]), seed=st.integers(0, 9)
)
def test_the_share_is_the_mean_of_the_mask_in_low_resolution(height: int, width: int, scale: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    wide = random.integers(0, 256, (height, width + 9, 3), np.uint8) // np.array([1, 1 + seed % 3, 1], np.uint8)
    image = wide[:, 5 : 5 + width]  # a part of a wider array, as tiles are
    assert tissue_share(image, scale) == tissue_mask(low_resolution(image, scale)).mean()


@pytest.mark.skipif(not (DATA / "hubmap_kidney").is_dir(), reason="HISTOFOLD_DATA has no hubmap_kidney")
def test_real_glomeruli_lie_in_tissue() -> None:
    folder = DATA / "hubmap_kidney" / "tiles_256_red16"
    masks = sorted(path for path in folder.rglob("*.png") if "mask" in str(path.relative_to(folder)))
    assert masks
    inside = total = 0
    for path in masks:
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0
        picture = Path(str(path).replace("masks", "images").replace("_mask", ""))
        rgb = cv2.imread(str(picture))[:, :, ::-1]
        inside += int((tissue_mask(np.ascontiguousarray(rgb)) & mask).sum())
        total += int(mask.sum())
    assert inside / total > 0.9
