"""Nuclei magnified to one size: what is measured, what the networks see, and that nothing moves on the way back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from histofold.errors import ConfigError, DataError
from histofold.inference import planning, sized
from histofold.inference.predict import fingerprint_of, predict_array, predict_sample
from histofold.inference.sources import ArraySource, SlideSource
from histofold.inference.stream import Settings, output_bands
from histofold.preprocess import Preprocess

PLAIN = Settings(tile=64, device="cpu", precision="32-true")
SIZED = replace(PLAIN, size=36.0)


class Red(nn.Module):
    """Foreground is how red a pixel is; it remembers how much it was shown."""

    divisor = 8

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.tiles = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.tiles += x.shape[0]
        return x[:, :1] / 255 * self.weight


def discs(diameter: float, height: int = 150, width: int = 170, apart: int = 70) -> NDArray[np.uint8]:
    """Red discs on black, softly drawn, with their centres on whole pixels."""
    y, x = np.mgrid[:height, :width]
    away = np.full((height, width), np.inf)
    for top in range(40, height, apart):
        for left in range(40, width, apart):
            away = np.minimum(away, np.hypot(y - top, x - left))
    red = np.clip(diameter / 2 - away + 0.5, 0, 1) * 255
    return np.dstack([red, np.zeros_like(red), np.zeros_like(red)]).astype(np.uint8)


def test_the_typical_instance_is_the_one_that_the_median_pixel_lies_in() -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[:20, :20] = 7
    labels[30, ::2] = np.arange(10, 30)
    assert sized.typical_diameter(labels) == pytest.approx(2 * np.sqrt(400 / np.pi)), "crumbs do not count"
    labels[21:29, :] = 8
    assert sized.typical_diameter(labels) == pytest.approx(2 * np.sqrt(400 / np.pi)), "320 px are less than half"
    assert sized.typical_diameter(np.zeros((5, 5), np.uint16)) == 0


@given(st.floats(0, 300), st.floats(1, 100))
def test_a_magnification_never_makes_smaller_and_ends_at_four(diameter: float, size: float) -> None:
    zoom = sized.magnification(diameter, size)
    assert 1 <= zoom <= 4
    if diameter > 0 and 1 < size / diameter < 4:
        assert zoom * diameter == pytest.approx(size)


@pytest.mark.parametrize(("diameter", "zoom"), [(6, 4.0), (12, 3.0), (24, 1.5), (34, 1.0), (60, 1.0)])
def test_an_image_is_measured_by_what_the_network_finds(kit: Any, diameter: float, zoom: float) -> None:
    found = sized.measured(ArraySource(discs(diameter)), [kit.member(Red())], None, SIZED)
    assert found == pytest.approx(zoom, rel=0.08)


def test_an_image_without_nuclei_stays_as_it_is(kit: Any) -> None:
    image = np.zeros((50, 60, 3), np.uint8)
    assert sized.measured(ArraySource(image), [kit.member(Red())], None, SIZED) == 1.0
    assert not predict_array(image, [kit.member(Red())], None, SIZED).any()


@pytest.mark.parametrize("diameter", [8, 13, 27])
def test_bands_come_back_to_their_own_pixels_without_a_shift(kit: Any, diameter: float) -> None:
    image = discs(diameter, 131, 173)
    codes = predict_array(image, [kit.member(Red())], None, SIZED)
    assert codes.shape == (1, 131, 173)
    y, x = np.mgrid[:131, :173]
    before, after = image[..., 0].astype(float), codes[0].astype(float)
    for axis in (y, x):
        assert (axis * after).sum() / after.sum() == pytest.approx((axis * before).sum() / before.sum(), abs=0.02)
    assert np.abs(codes[0].astype(int) - image[..., 0]).mean() < 1


def test_networks_see_more_of_small_nuclei_and_no_more_of_large_ones(kit: Any) -> None:
    def tiles(diameter: float, settings: Settings) -> int:
        network = Red()
        predict_array(discs(diameter), [kit.member(network)], None, settings)
        return network.tiles

    views = replace(SIZED, tta="flips")
    assert tiles(12, views) > 6 * tiles(12, replace(PLAIN, tta="flips"))
    # One look with one view beside the four views.
    assert tiles(50, views) == pytest.approx(1.25 * tiles(50, replace(PLAIN, tta="flips")))


def test_pixels_are_enhanced_before_they_are_magnified_as_in_training() -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    enhance = Preprocess(clahe=2.0).pixels
    (rows,) = sized.Magnified(ArraySource(image), 2.0).bands(80, [enhance])
    assert np.array_equal(rows, cv2.resize(enhance(image), (100, 80), interpolation=cv2.INTER_LINEAR))
    both = np.concatenate(list(sized.Magnified(ArraySource(image), 2.0).bands(32, [np.asarray, enhance])))
    assert both.shape == (80, 100, 6)
    assert np.array_equal(both[..., 3:], rows)


def test_an_ensemble_shares_one_magnification_and_its_weights(kit: Any) -> None:
    strong, weak = Red(), Red()
    weak.weight.data[:] = 0.5
    codes = predict_array(discs(12), [kit.member(strong), kit.member(weak)], [3, 1], SIZED)
    assert codes.max() == pytest.approx(255 * 0.875, abs=1)


def test_the_spread_comes_back_too(kit: Any) -> None:
    settings = replace(SIZED, spread=True, tta="flips")
    codes = predict_array(discs(12), [kit.member(Red())], None, settings)
    assert [band.name for band in output_bands([kit.member(Red())], settings)] == ["foreground", "spread"]
    assert codes.shape == (2, 150, 170)
    assert codes[1].max() <= 1, "the same from every side"


def test_slides_are_refused_and_not_quietly_left_as_they_are(kit: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"predict\.size=36: magnifies whole images"):
        predict_sample(SlideSource(kit.FakeSlide(discs(12))), [kit.member(Red())], None, SIZED, tmp_path / "a.tif")
    assert not (tmp_path / "a.tif").exists()


def test_a_size_is_part_of_what_predictions_depend_on_and_of_plans(kit: Any) -> None:
    assert fingerprint_of(["a"], [1.0], SIZED) != fingerprint_of(["a"], [1.0], PLAIN)
    members = [kit.member(Red())]
    plans = [planning.plan([planning.SampleSize(500, 500)], 1.0, members, chosen) for chosen in (PLAIN, SIZED)]
    assert plans[1].peak_memory > plans[0].peak_memory + 3 * 15 * 500 * 500, (
        "an image of four times the side has to fit"
    )
    slide = planning.SampleSize(50_000, 50_000, slide=True)
    peaks = [planning.plan([slide], 1.0, members, chosen).peak_memory for chosen in (PLAIN, SIZED)]
    assert peaks[0] == pytest.approx(peaks[1], abs=1 << 26), "it is refused for what it is and not for its memory"
    assert planning.magnified((500, 400), 2.0, SIZED) == (1000, 800)
    with pytest.raises(ConfigError, match=r"predict\.size"):
        replace(PLAIN, size=-1.0)
