from __future__ import annotations

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage as ndi

from histofold import rle
from histofold.rle import RleError, RunMask

SCALES = [1, 1.5, 2, 2.75, 3, 4, 7]


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width, grain = draw(st.integers(1, 60)), draw(st.integers(1, 60)), draw(st.sampled_from([1, 2, 9]))
    coarse = rng.random((-(-height // grain), -(-width // grain))) < draw(st.sampled_from([0, 0.05, 0.5, 0.9, 1]))
    return np.kron(coarse, np.ones((grain, grain), bool))[:height, :width]


def share_of_cells(window: np.ndarray, real: np.ndarray, scale: float) -> np.ndarray:
    """The definition, in exact fractions: overlap of each cell with each pixel that is real."""
    step = Fraction(scale)

    def weights(length: int) -> np.ndarray:
        table = np.zeros((math.ceil(length / scale), length))
        for cell in range(table.shape[0]):
            for pixel in range(length):
                table[cell, pixel] = max(0, min(pixel + 1, (cell + 1) * step) - max(pixel, cell * step))
        return table

    rows, columns = weights(window.shape[0]), weights(window.shape[1])
    total = rows @ real @ columns.T
    return np.divide(rows @ window @ columns.T, total, out=np.zeros_like(total), where=total > 1e-12)


@settings(max_examples=80, deadline=None)
@given(
    masks(), st.integers(-15, 65), st.integers(-15, 65), st.integers(1, 40), st.integers(1, 40), st.sampled_from(SCALES)
)
def test_windows_at_any_place_and_scale(
    mask: np.ndarray, y: int, x: int, height: int, width: int, scale: float
) -> None:
    runs = RunMask.from_mask(mask)
    around = np.pad(mask, 120).astype(float)[120 + y : 120 + y + height, 120 + x : 120 + x + width]
    real = np.pad(np.ones_like(mask), 120).astype(float)[120 + y : 120 + y + height, 120 + x : 120 + x + width]
    assert np.array_equal(runs.window(y, x, height, width), around)
    share = runs.reduced_window(y, x, height, width, scale)
    assert share.dtype == np.float32
    assert share.shape == (math.ceil(height / scale), math.ceil(width / scale))
    expected = share_of_cells(around, real, scale)
    assert np.allclose(share, expected, atol=1e-6)
    binary = runs.reduced_mask(y, x, height, width, scale)
    clear = np.abs(expected - 0.5) > 1e-6
    assert np.array_equal(binary[clear], expected[clear] > 0.5)


def test_half_a_cell_is_foreground() -> None:
    mask = np.zeros((6, 6), bool)
    mask[:, 3:] = True
    assert RunMask.from_mask(mask).reduced_mask(0, 0, 6, 6, 2).tolist() == [[0, 1, 1]] * 3
    assert RunMask.from_mask(mask).reduced_window(0, 0, 6, 6, 1.5)[0].tolist() == [0, 0, 1, 1]
    assert RunMask.from_mask(mask).reduced_window(0, 2, 6, 4, 4).tolist() == [[0.75], [0.75]]
    with pytest.raises(RleError, match="at least 1"):
        RunMask.from_mask(mask).reduced_window(0, 0, 6, 6, 0.5)


@settings(max_examples=80, deadline=None)
@given(masks())
def test_boxes_are_those_of_the_8_connected_objects(mask: np.ndarray) -> None:
    boxes = RunMask.from_mask(mask).boxes()
    labels, count = ndi.label(mask, np.ones((3, 3)))
    found = [(s[0].start, s[1].start, s[0].stop - s[0].start, s[1].stop - s[1].start) for s in ndi.find_objects(labels)]
    areas = ndi.sum_labels(mask, labels, range(1, count + 1)).astype(int).tolist()
    assert boxes.shape == (count, 5)
    assert boxes.tolist() == [[*box, area] for box, area in zip(found, areas, strict=True)]


@settings(max_examples=60, deadline=None)
@given(masks(), st.integers(0, 2**32 - 1), st.sampled_from(["columns", "rows"]))
def test_overlap_needs_no_pixels(mask: np.ndarray, seed: int, dialect: str) -> None:
    other = np.random.default_rng(seed).random(mask.shape) < 0.4
    one, two = RunMask.from_mask(mask), RunMask(rle.encode(other, dialect), mask.shape, dialect)
    assert one.intersection(two) == two.intersection(one) == np.count_nonzero(mask & other)
    total = np.count_nonzero(mask) + np.count_nonzero(other)
    assert one.dice(two) == (2 * np.count_nonzero(mask & other) / total if total else 1)


@settings(max_examples=40, deadline=None)
@given(masks(), st.sampled_from(["columns", "rows"]))
def test_texts_runs_and_pickles(mask: np.ndarray, dialect: str) -> None:
    text = rle.encode(mask, dialect)
    runs = RunMask(text, mask.shape, dialect)
    assert (runs.height, runs.width) == mask.shape
    assert runs.area == np.count_nonzero(mask)
    assert runs.text() == text
    starts, lengths = runs.runs
    assert starts.dtype == lengths.dtype == np.int64
    flat = mask.flatten(order="F" if dialect == "columns" else "C")
    covered = np.zeros_like(flat)
    for start, length in zip(starts, lengths, strict=True):
        covered[start : start + length] = True
    assert np.array_equal(covered, flat)
    again = pickle.loads(pickle.dumps(runs))
    assert again.text() == text


def test_masks_of_different_size_do_not_compare() -> None:
    one, two = (RunMask.from_mask(np.zeros(shape, bool)) for shape in ((3, 4), (4, 3)))
    with pytest.raises(RleError, match="3 × 4 and 4 × 3"):
        one.intersection(two)


def test_faulty_texts_are_refused() -> None:
    with pytest.raises(RleError, match="past the last pixel, 12"):
        RunMask("12 2", (3, 4))
