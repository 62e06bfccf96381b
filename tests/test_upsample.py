from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histofold import rle
from histofold.slides.reduce import reduce_array
from histofold.tiles.grid import rational, reduced
from histofold.upsample import full_size, reduced_labels, upsampled


def whole(codes: np.ndarray, scale: float, height: int, width: int, step: int) -> np.ndarray:
    bands = [codes[top : top + step] for top in range(0, len(codes), step)]
    parts = list(upsampled(bands, scale, height, width))
    starts = np.cumsum([0, *(len(rows) for _, rows in parts)])
    assert [first for first, _ in parts] == starts[:-1].tolist()
    return np.vstack([rows for _, rows in parts])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from([1, 1.2, 1.4, 1.5, 2, 2.3, 3, 3.3, 4, 4.1, 7.25]),
    st.integers(1, 20),
    st.integers(0, 1000),
)
def test_a_threshold_means_the_same_as_in_the_submission(
    height: int, width: int, scale: float, step: int, seed: int
) -> None:
    shape = (reduced(height, scale), reduced(width, scale))  # 84 / 1.4 is 60, and in floats a little more
    codes = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    values = whole(codes, scale, height, width, step)
    assert values.shape == (height, width)
    for level in (1, 100, 128, 255):
        bands = [codes[top : top + step] for top in range(0, len(codes), step)]
        expected = np.vstack(list(rle.upsample_bands(bands, scale, height, width, level / 255)))
        assert np.array_equal(values >= level, expected)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_ramp_stays_where_it_was(scale: int) -> None:
    full = np.tile(2.0 * np.arange(120), (8 * scale, 1))  # twice, so that the mean of every cell is a whole number
    reduced = full.reshape(8, scale, 120 // scale, scale).mean(axis=(1, 3))
    back = whole(reduced.astype(np.uint8), scale, 8 * scale, 120, 3)
    inner = slice(scale, 120 - scale)
    assert np.abs(back[:, inner] - full[:, inner]).max() <= 1  # half a pixel's shift would be `scale`


def test_labels_come_back_from_their_reduction() -> None:
    labels = np.kron(np.arange(12).reshape(3, 4), np.ones((4, 4), int))[:10, :14]
    assert np.array_equal(full_size(reduced_labels(labels, 4), 4, 10, 14), labels)
    assert reduced_labels(labels, 4).shape == (3, 4)


@pytest.mark.parametrize("scale", [1.3333, 1.9999, 1.0001, 2.7182818])
def test_a_scale_that_is_no_small_fraction_is_the_one_that_pixels_were_reduced_by(scale: float) -> None:
    """1.3333 is read as 4/3: as written it would move the end of this strip by a pixel, 1.9999 by two."""
    length = 44_066
    labels = np.zeros((1, length), np.int32)
    for number, start in enumerate(range(300, length - 200, 977), start=1):
        labels[:, start : start + 130] = number
    exact = float(rational(scale))
    small = reduced_labels(labels, scale)
    assert np.array_equal(small, reduced_labels(labels, exact))
    assert np.array_equal(full_size(small, scale, *labels.shape), full_size(small, exact, *labels.shape))
    codes = np.repeat(np.where(small > 0, 255, 0).astype(np.uint8), reduced(4, scale), axis=0)
    values = whole(codes, scale, 4, length, 3)
    assert np.array_equal(values, whole(codes, exact, 4, length, 3))
    # What was reduced by reading comes back in its place, to half a reduced pixel at each of two ends.
    for last in (slice(0, 2000), slice(length - 2000, length)):
        assert np.count_nonzero((values[0, last] >= 128) != (labels[0, last] > 0)) <= 2 * scale * 3


def test_the_submission_of_such_a_scale_lies_on_the_slide() -> None:
    """A glomerulus near the foot of a slide of 44,066 rows: read, thresholded, enlarged and encoded again."""
    height, width = 44_066, 600
    drawn = np.zeros((height, width, 3), np.uint8)
    cv2.circle(drawn, (300, 43_800), 130, (255, 255, 255), -1)
    truth = rle.RunMask.from_mask(drawn[:, :, 0])
    for scale in (4 / 3, 1.3333, 1.9999, 1.0001):
        small = np.ascontiguousarray(reduce_array(drawn, scale)[:, :, 0])
        text = rle.encode_upsampled([small], scale, height, width, 0.5)
        assert rle.RunMask(text, (height, width)).dice(truth) > 0.999, scale
