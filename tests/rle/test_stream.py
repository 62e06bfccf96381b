from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage as ndi

from histofold import rle
from histofold.rle import RleError, RowStreamEncoder, threads

SCALES = [1, 1.5, 2, 3, 4, 7.3, 16]


def cut(image: np.ndarray, seed: int) -> list[np.ndarray]:
    """Row bands of any height, empty ones among them."""
    rng = np.random.default_rng(seed)
    return np.split(image, sorted(rng.integers(0, len(image) + 1, rng.integers(0, 6)).tolist()))


def cleaned(mask: np.ndarray, min_area: int, max_hole: int) -> np.ndarray:
    """The definition on pixels: small 8-connected objects go, then small 4-connected holes that the border misses."""
    mask = mask.astype(bool).copy()
    labels, _ = ndi.label(mask, np.ones((3, 3)))
    areas = np.bincount(labels.reshape(-1))
    mask &= areas[labels] >= min_area
    gaps, count = ndi.label(~mask)
    border = np.unique(np.concatenate([gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]]))
    areas = np.bincount(gaps.reshape(-1), minlength=count + 1)
    for gap in set(range(1, count + 1)) - set(border.tolist()):
        if areas[gap] <= max_hole:
            mask[gaps == gap] = True
    return mask


@st.composite
def swiss_cheese(draw: st.DrawFn) -> np.ndarray:
    """Smooth noise above a threshold: objects with holes with objects in them, at all sizes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 80)), draw(st.integers(1, 80)))
    noise = ndi.gaussian_filter(rng.random(shape), draw(st.sampled_from([0, 0.7, 1.5, 3])))
    return noise > np.quantile(noise, draw(st.sampled_from([0.1, 0.4, 0.6, 0.9])))


@settings(max_examples=60, deadline=None)
@given(swiss_cheese(), st.sampled_from(["columns", "rows"]), st.integers(0, 1000))
def test_bands_of_any_height_give_the_text_of_the_whole(mask: np.ndarray, dialect: str, seed: int) -> None:
    encoder = RowStreamEncoder(*mask.shape, dialect)
    for band in cut(mask, seed):
        encoder.push(band)
    assert encoder.finish() == rle.encode(mask, dialect)


@settings(max_examples=150, deadline=None)
@given(swiss_cheese(), st.integers(0, 40), st.integers(0, 40), st.integers(0, 1000))
def test_small_objects_and_holes_across_bands(mask: np.ndarray, min_area: int, max_hole: int, seed: int) -> None:
    encoder = RowStreamEncoder(*mask.shape, min_area=min_area, max_hole=max_hole)
    for band in cut(mask, seed):
        encoder.push(band)
    expected = cleaned(mask, min_area, max_hole)
    assert encoder.finish() == rle.encode(expected)
    runs = rle.RunMask.from_mask(mask).cleaned(min_area, max_hole)
    assert np.array_equal(runs.window(0, 0, *mask.shape), expected)


def test_a_ring_with_an_island_over_many_bands() -> None:
    mask = np.zeros((60, 60), np.uint8)
    cv2.circle(mask, (30, 30), 25, 1, 4)
    mask[28:32, 28:32] = 1  # an island of 16 pixels in the ring's hole
    hole = int(ndi.label(1 - mask)[0].max())
    assert hole == 2
    for min_area, max_hole, kept in [(17, 0, 1), (16, 0, 2), (17, 10**6, 1), (0, 10**6, 1)]:
        encoder = RowStreamEncoder(60, 60, min_area=min_area, max_hole=max_hole)
        for y in range(60):
            encoder.push(mask[y : y + 1])
        result = encoder.mask()
        assert len(result.boxes()) == kept
        filled = result.window(0, 0, 60, 60)[30, 20]
        assert filled == (max_hole > 0)
        assert result.window(0, 0, 60, 60)[0, 0] == 0


def test_holes_at_the_border_are_no_holes() -> None:
    mask = np.ones((9, 9), bool)
    mask[0, 4] = mask[4, 4] = mask[8, 0] = False
    encoder = RowStreamEncoder(9, 9, max_hole=5)
    encoder.push(mask)
    mask[4, 4] = True
    assert encoder.finish() == rle.encode(mask)


def test_wrong_bands_are_refused() -> None:
    encoder = RowStreamEncoder(10, 5)
    with pytest.raises(RleError, match=r"expected a band of \(rows, 5\) pixels, found \(3, 4\)"):
        encoder.push(np.zeros((3, 4), bool))
    encoder.push(np.zeros((6, 5), bool))
    with pytest.raises(RleError, match="6 of 10 rows were pushed"):
        encoder.finish()
    with pytest.raises(RleError, match="row 11 of a mask of 10 rows"):
        encoder.push(np.zeros((5, 5), bool))
    encoder.push(np.ones((4, 5), bool))
    assert encoder.finish() == encoder.finish() == "7 4 17 4 27 4 37 4 47 4"


def interpolated(values: np.ndarray, scale: float, height: int, width: int) -> np.ndarray:
    """Bilinear, pixel by pixel from the definition: (Y + ½) / scale - ½, clamped."""

    def axis(count: int, reduced: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = np.clip((np.arange(count) + 0.5) / scale - 0.5, 0, reduced - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, reduced - 1), at - low

    top, bottom, down = axis(height, values.shape[0])
    left, right, across = axis(width, values.shape[1])
    rows = values[top] * (1 - down[:, None]) + values[bottom] * down[:, None]
    return rows[:, left] * (1 - across) + rows[:, right] * across


@settings(max_examples=120, deadline=None)
@given(
    st.integers(1, 200),
    st.integers(1, 200),
    st.sampled_from(SCALES),
    st.sampled_from([0, 1, 3]),
    st.sampled_from([0.2, 0.5, 0.55, 1]),
    st.integers(0, 10**6),
)
def test_upsampling_is_bilinear(
    height: int, width: int, scale: float, smooth: float, threshold: float, seed: int
) -> None:
    shape = (math.ceil(height / scale), math.ceil(width / scale))
    noise = ndi.gaussian_filter(np.random.default_rng(seed).random(shape), smooth)
    spread = np.ptp(noise) or 1
    values = (255 * (noise - noise.min()) / spread).astype(np.uint8)
    bands = list(rle.upsample_bands(cut(values, seed), scale, height, width, threshold))
    mask = np.concatenate(bands)
    assert mask.dtype == np.bool_
    assert mask.shape == (height, width)
    exact = interpolated(values.astype(float), scale, height, width)
    clear = np.abs(exact - 255 * threshold) > 1e-3  # float32 may fall on either side of a tie
    assert np.array_equal(mask[clear], exact[clear] >= 255 * threshold)
    text = rle.encode_upsampled(cut(values, seed + 1), scale, height, width, threshold, min_area=5, max_hole=5)
    assert text == rle.encode(cleaned(mask, 5, 5))


@pytest.mark.parametrize("scale", [2, 3, 4, 5])
def test_upsampling_does_not_shift_by_half_a_pixel(scale: int) -> None:
    """What is symmetric stays symmetric, and an edge between two reduced pixels comes to lie at their border."""
    values = np.zeros((20, 24), np.uint8)
    values[5:15, 7:17] = 255
    (mask,) = [np.concatenate(list(rle.upsample_bands([values], scale, 20 * scale, 24 * scale, 0.5)))]
    assert np.array_equal(mask, mask[::-1])
    assert np.array_equal(mask, mask[:, ::-1])
    assert mask[10 * scale].tolist() == np.repeat(values[10] > 0, scale).tolist()
    assert mask[:, 12 * scale].tolist() == np.repeat(values[:, 12] > 0, scale).tolist()
    # The centre of mass of a lopsided object stays where it is, to a fraction of a full-size pixel.
    values = np.zeros((30, 30), np.uint8)
    cv2.fillPoly(values, [np.array([[3, 4], [25, 9], [12, 26]])], 255)
    mask = np.concatenate(list(rle.upsample_bands([values], scale, 30 * scale, 30 * scale, 0.5)))
    before = (np.array(ndi.center_of_mass(values)) + 0.5) * scale
    assert np.allclose(np.array(ndi.center_of_mass(mask)) + 0.5, before, atol=0.15 * scale)


def test_upsampling_agrees_with_opencv() -> None:
    values = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8)
    for scale in (2, 4, 8):
        resized = cv2.resize(values.astype(np.float32), None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        mask = np.concatenate(list(rle.upsample_bands([values], scale, 40 * scale, 50 * scale, 0.5)))
        assert np.array_equal(mask, resized >= 127.5)


def test_thresholds_are_those_of_a_histogram_of_256_bins() -> None:
    values = np.arange(256, dtype=np.uint8)[None]
    for level in range(257):
        (mask,) = rle.upsample_bands([values], 1, 1, 256, level / 255)
        assert mask.sum() == 256 - level
    for threshold in (-0.1, 128):
        with pytest.raises(RleError, match="a probability from 0 to 1"):
            list(rle.upsample_bands([values], 1, 1, 256, threshold))


def test_wrong_maps_are_refused() -> None:
    def up(*bands: np.ndarray) -> list[np.ndarray]:
        return list(rle.upsample_bands(bands, 2, 10, 7, 0.5))

    with pytest.raises(RleError, match=r"expected uint8 bands of \(rows, 4\), found float64"):
        up(np.zeros((5, 4)))
    with pytest.raises(RleError, match=r"found uint8 \(5, 3\)"):
        up(np.zeros((5, 3), np.uint8))
    with pytest.raises(RleError, match="the map ends after 3 of 5 rows"):
        up(np.zeros((3, 4), np.uint8))
    with pytest.raises(RleError, match="expected 5"):
        up(np.zeros((5, 4), np.uint8), np.zeros((1, 4), np.uint8))


@pytest.mark.parametrize("height", [4000, 16000])
def test_memory_follows_the_outline_and_not_the_slide(height: int) -> None:
    """A slide four times as high with the same object needs no more memory but for a number a row."""
    width = 3000

    def bands() -> Iterator[np.ndarray]:
        for y in range(0, height, 500):
            band = np.zeros((500, width), bool)
            if y == 1000:
                cv2.circle(band.view(np.uint8), (700, 250), 200, 1, -1)
            yield band

    encoder = RowStreamEncoder(height, width, min_area=10, max_hole=10)
    threads.over_rows(lambda a, b: None, 4000, 4000)  # the pool is there before memory is measured
    tracemalloc.start()
    for band in bands():
        encoder.push(band)
    del band
    held = tracemalloc.get_traced_memory()[0]
    text = encoder.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(text.split()) == 2 * 401
    assert held < 100_000 + 10 * height  # bytes; the mask would be `height × 3000`
    assert peak < 2.5 * 500 * width + 100 * height


@pytest.mark.slow
def test_a_slide_of_60000_by_50000() -> None:
    """Three billion pixels with sparse objects, streamed in bands and upsampled, each against the sum of its parts."""
    height, width, scale = 60_000, 50_000, 4
    rng = np.random.default_rng(0)
    values = np.zeros((height // scale, width // scale), np.uint8)
    for _ in range(200):
        centre = (int(rng.integers(12_500)), int(rng.integers(15_000)))
        cv2.circle(values, centre, int(rng.integers(5, 100)), 255, -1)
    bands = [values[y : y + 256] for y in range(0, len(values), 256)]
    text = rle.encode_upsampled(bands, scale, height, width, 0.5)
    encoder = RowStreamEncoder(height, width)
    area = 0
    for band in rle.upsample_bands(bands, scale, height, width, 0.5):
        area += np.count_nonzero(band)
        encoder.push(band)
    assert encoder.finish() == text
    runs = rle.RunMask(text, (height, width))
    assert runs.area == area
    assert runs.text() == text
    assert np.array_equal(runs.reduced_mask(0, 0, height, width, scale), values > 0)
