from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histofold import rle
from histofold.tiles.grid import reduced
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
