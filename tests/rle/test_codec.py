from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from histofold import rle
from histofold.errors import DataError
from histofold.rle import RleError, threads

DIALECTS = ["columns", "rows"]
TINY = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


@st.composite
def blobs(draw: st.DrawFn) -> np.ndarray:
    """Masks wide enough for whole blocks of the scanner, from nearly empty to nearly full, fine or coarse."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(1, 30)), draw(st.integers(1, 300))
    grain = draw(st.sampled_from([1, 3, 17]))
    coarse = rng.random((-(-height // grain), -(-width // grain))) < draw(st.sampled_from([0.003, 0.1, 0.5, 0.97, 1]))
    return np.kron(coarse, np.ones((grain, grain), bool))[:height, :width]


def from_coco(counts: list[int]) -> str:
    """Uncompressed COCO counts (zeros, ones, zeros, …) as Kaggle's text."""
    numbers, position = [], 0
    for index, count in enumerate(counts):
        if index % 2 and count:
            numbers += [position + 1, count]
        position += count
    return " ".join(map(str, numbers))


@settings(deadline=None)
@given(mask=TINY, dialect=st.sampled_from(DIALECTS))
def test_encode_is_what_a_plain_reader_writes(mask: np.ndarray, dialect: str, plain_encode: Callable) -> None:
    assert rle.encode(mask, dialect) == plain_encode(mask, dialect)


@settings(max_examples=60, deadline=None)
@given(mask=blobs(), dialect=st.sampled_from(DIALECTS))
def test_encode_of_wide_masks(mask: np.ndarray, dialect: str, plain_encode: Callable) -> None:
    assert rle.encode(mask, dialect) == plain_encode(mask, dialect)


@settings(deadline=None)
@given(mask=st.one_of(TINY, blobs()), dialect=st.sampled_from(DIALECTS))
def test_decode_gives_the_mask_back(mask: np.ndarray, dialect: str) -> None:
    decoded = rle.decode(rle.encode(mask, dialect), mask.shape, dialect)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, mask)


# pycocotools uses a form of numpy's API that numpy means to take away.
@pytest.mark.filterwarnings("ignore:.*__array__.*:DeprecationWarning")
@settings(max_examples=60, deadline=None)
@given(mask=blobs())
def test_against_pycocotools(mask: np.ndarray) -> None:
    counts = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    text = rle.encode(mask)
    assert np.array_equal(coco.decode(counts), rle.decode(text, mask.shape))
    assert int(coco.area(counts)) == sum(map(int, text.split()[1::2]))
    # The other way round: their counts, written out by hand in Kaggle's form, are our text.
    flat = mask.flatten(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
    lengths = np.diff([0, *edges, flat.size]).tolist()
    theirs = coco.frPyObjects({"counts": lengths, "size": list(mask.shape)}, *mask.shape)
    assert theirs["counts"] == counts["counts"]
    assert from_coco(lengths) == text


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (1, 400), (400, 1), (5, 64), (5, 65), (64, 129), (3, 1025)])
def test_empty_full_and_single_pixels(shape: tuple[int, int], dialect: str, plain_encode: Callable) -> None:
    empty = np.zeros(shape, bool)
    assert rle.encode(empty, dialect) == rle.DIALECTS[dialect].empty
    assert rle.encode(~empty, dialect) == f"1 {empty.size}"
    for y in {0, shape[0] // 2, shape[0] - 1}:
        for x in {0, shape[1] // 2, shape[1] - 1}:
            mask = empty.copy()
            mask[y, x] = True
            text = rle.encode(mask, dialect)
            assert text == plain_encode(mask, dialect)
            assert np.array_equal(rle.decode(text, shape, dialect), mask)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_masks_without_pixels(shape: tuple[int, int], dialect: str) -> None:
    text = rle.encode(np.zeros(shape, bool), dialect)
    assert text == rle.DIALECTS[dialect].empty
    assert rle.decode(text, shape, dialect).shape == shape
    assert rle.encode_labels(np.zeros(shape, int), dialect) == {}


def test_the_order_of_the_pixels_is_the_dialect() -> None:
    mask = np.zeros((3, 4), bool)
    mask[1:, 1] = True
    mask[0, 2] = True
    assert rle.encode(mask, "columns") == "5 3"  # goes on over the end of a column
    assert rle.encode(mask, "rows") == "3 1 6 1 10 1"
    mine = rle.Dialect("zero", order="rows", base=0, empty="-")
    assert rle.encode(mask, mine) == "2 1 5 1 9 1"
    assert rle.encode(mask & False, mine) == "-"
    assert np.array_equal(rle.decode("2 1 5 1 9 1", (3, 4), mine), mask)


def test_a_mask_that_touches_the_corners_keeps_them_and_is_not_changed() -> None:
    """Winners' "less memory" encoder sets the first and the last pixel to 0."""
    mask = np.zeros((40, 50), np.uint8)
    mask[:3, :3] = mask[-3:, -3:] = 1
    before = mask.copy()
    mask.flags.writeable = False
    text = rle.encode(mask)
    assert text.startswith("1 3 41 3")
    assert text.endswith(" 1998 3")
    assert rle.decode(text, mask.shape)[-1, -1] == rle.decode(text, mask.shape)[0, 0] == 1
    assert np.array_equal(mask, before)


MEMORY = """
import resource, sys
import numpy as np
from histofold import rle
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
rle.encode(np.eye(9, dtype=np.uint8))
mask = np.zeros((16000, 16000), np.uint8)
mask[:] = 0
mask[4000:9000, 3000:9000] = 1
before = peak()
text = rle.encode(mask)
print(peak() - before)
"""


def test_encoding_needs_no_second_mask() -> None:
    """The numpy one-liner promotes the mask to int64: eight times its 244 MB."""
    package = str(Path(rle.__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", MEMORY],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": package},
    )
    assert float(run.stdout) < 40


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_every_integer_type_means_the_same(dtype: type) -> None:
    rng = np.random.default_rng(3)
    mask = rng.random((21, 203)) < 0.2
    values = (mask * rng.integers(1, 100, mask.shape)).astype(dtype)
    assert rle.encode(values) == rle.encode(mask)
    values[3, 5] = -1 if np.issubdtype(dtype, np.signedinteger) else np.iinfo(dtype).max
    mask[3, 5] = True
    assert rle.encode(values) == rle.encode(mask)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_memory_layouts(dialect: str) -> None:
    mask = np.random.default_rng(4).random((60, 90)) < 0.5
    expected = rle.encode(mask[::2, 1::3].copy(), dialect)
    assert rle.encode(mask[::2, 1::3], dialect) == expected
    assert rle.encode(np.asfortranarray(mask)[::2, 1::3], dialect) == expected
    assert rle.encode(mask[::-1].copy()[::-1], dialect) == rle.encode(np.asfortranarray(mask), dialect)


@pytest.mark.parametrize("array", [np.zeros((3, 3)), np.zeros((3, 3, 1), bool), np.zeros(3, bool), np.array("x")])
def test_what_is_no_mask_is_refused(array: np.ndarray) -> None:
    with pytest.raises(RleError, match=r"two axes|boolean or integer"):
        rle.encode(array)


def large_mask() -> np.ndarray:
    """Above the size at which threads share the work."""
    mask = np.zeros((2000, 1700), np.uint8)
    assert mask.size > threads.SMALL
    rng = np.random.default_rng(5)
    for _ in range(60):
        centre = (int(rng.integers(1700)), int(rng.integers(2000)))
        cv2.circle(mask, centre, int(rng.integers(3, 120)), 1, -1)
    mask[998:1003] ^= rng.random((5, 1700)) < 0.3  # busy where two threads meet
    return mask


@pytest.mark.parametrize("dialect", DIALECTS)
def test_threads_give_what_one_thread_gives(dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = large_mask()
    monkeypatch.setattr(threads, "count", lambda: 1)
    alone = rle.encode(mask, dialect)
    monkeypatch.setattr(threads, "count", lambda: 7)
    monkeypatch.setattr(threads, "SMALL", 1)
    assert rle.encode(mask, dialect) == alone
    assert np.array_equal(rle.decode(alone, mask.shape, dialect), mask)
    order = "F" if dialect == "columns" else "C"
    edges = np.flatnonzero(np.diff(mask.flatten(order=order).astype(np.int8), prepend=0, append=0))
    assert alone == " ".join(f"{a + 1} {b - a}" for a, b in zip(edges[::2], edges[1::2], strict=True))


def test_worker_processes_use_one_thread() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(threads.count) == 1
        mask = large_mask()
        assert pool.apply(rle.encode, (mask,)) == rle.encode(mask)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_wait_for_its_parents_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "count", lambda: 2)
    mask = large_mask()
    text = rle.encode(mask)  # starts the parent's threads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads
        child = os.fork()
    if child == 0:
        os._exit(0 if rle.encode(mask) == text else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=15), elements=st.integers(0, 4)),
    st.sampled_from(DIALECTS),
)
def test_labels_are_encoded_as_their_masks(labels: np.ndarray, dialect: str) -> None:
    texts = rle.encode_labels(labels, dialect)
    assert list(texts) == [label for label in np.unique(labels).tolist() if label]
    for label, text in texts.items():
        assert text == rle.encode(labels == label, dialect)
    consecutive = np.searchsorted([0, *texts], labels)
    assert np.array_equal(rle.decode_labels(list(texts.values()), labels.shape, dialect), consecutive)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64])
def test_labels_of_every_type(dtype: type) -> None:
    labels = np.zeros((70, 300), dtype)
    labels[3:9, 100:290] = 1
    labels[9:30, 50:200] = 100
    assert rle.encode_labels(np.asfortranarray(labels)) == rle.encode_labels(labels)
    assert {label: rle.encode(labels == label) for label in np.unique(labels)[1:].tolist()} == rle.encode_labels(labels)


def test_labels_that_are_none() -> None:
    with pytest.raises(RleError, match="from 0 to 2147483647; found -1 to 0"):
        rle.encode_labels(np.array([[0, -1]]))
    with pytest.raises(RleError, match="found 0 to 4294967296"):
        rle.encode_labels(np.array([[0, 2**32]]))
    assert rle.encode_labels(np.array([[0, 2**31 - 1]])) == {2**31 - 1: "2 1"}


def test_instances_that_share_a_pixel_are_named() -> None:
    with pytest.raises(RleError, match="texts 1 and 3 share the pixel 4"):
        rle.decode_labels(["1 4", "7 1", "4 2"], (5, 5))
    with pytest.raises(RleError, match=r"text 2: run 1 of 1 \(26 1\)"):
        rle.decode_labels(["1 4", "26 1"], (5, 5))
    assert rle.decode_labels(["", "2 1"], (1, 2)).tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("text", "dialect", "message"),
    [
        ("1 2 3", "columns", "3 numbers, an odd count"),
        ("1 2 5 0", "columns", r"run 2 of 2 \(5 0\): a length is at least 1"),
        ("1 2 5 -3", "columns", r"run 2 of 2 \(5 -3\): a length is at least 1"),
        ("0 2", "columns", r"run 1 of 1 \(0 2\): the first pixel has the number 1"),
        ("-4 2", "columns", r"run 1 of 1 \(-4 2\): the first pixel"),
        ("1 2 19 3", "columns", r"run 2 of 2 \(19 3\): goes past the last pixel, 20"),
        ("21 1", "columns", r"past the last pixel, 20; is the shape right"),
        ("9 2 3 1", "columns", r"run 2 of 2 \(3 1\): starts before the run before it \(9 2\)"),
        ("3 4 6 2", "columns", r"run 2 of 2 \(6 2\): overlaps the run before it \(3 4\)"),
        ("3 4 3 1", "rows", r"overlaps the run before it \(3 4\)"),
        ("1 two", "columns", r"run 1: 'two' is not an integer"),
        ("1 2 3.0 4", "columns", r"run 2: '3.0' is not an integer"),
        ("1 +2", "columns", r"'\+2' is not an integer"),
        ("1 2 ٣ 4", "columns", "is not an integer"),
        ("1 2 -", "columns", "'-' is not an integer"),
        ("1 9999999999999999999", "columns", "is not an integer of at most 18 digits"),
        ("1 0", "columns", r"run 1 of 1 \(1 0\): a length is at least 1"),
        ("", "rows", "an empty text; dialect 'rows' writes a mask without foreground '1 0'"),
        ("1 0 3 2", "rows", r"run 1 of 2 \(1 0\)"),
        (float("nan"), "columns", "expected a run-length text, found float"),
        (None, "columns", "found NoneType"),
        ("1 1", "diagonal", "unknown RLE dialect 'diagonal'; known are columns, rows"),
    ],
)
def test_faulty_texts_are_named(text: str, dialect: str, message: str) -> None:
    with pytest.raises(RleError, match=message) as caught:
        rle.decode(text, (4, 5), dialect)
    assert isinstance(caught.value, DataError)
    assert "\n" not in str(caught.value)


def test_harmless_spellings_are_read() -> None:
    assert rle.decode(" 1  2\t7 1\r\n", (2, 5)).T.reshape(-1).tolist() == [1, 1, 0, 0, 0, 0, 1, 0, 0, 0]
    touching = rle.decode("1 2 3 2", (2, 5))
    assert rle.encode(touching) == "1 4"
    assert rle.decode("1 0", (2, 2), "rows").sum() == 0


@settings(deadline=None)
@given(st.lists(st.integers(-3, 30), max_size=8), st.sampled_from(DIALECTS))
def test_a_text_is_either_refused_or_means_itself(numbers: list[int], dialect: str) -> None:
    text = " ".join(map(str, numbers))
    pairs = list(zip(numbers[::2], numbers[1::2], strict=False))
    ends = [0, *(start + length - 1 for start, length in pairs)]
    fine = len(numbers) % 2 == 0 and all(
        start > end and length > 0 for (start, length), end in zip(pairs, ends, strict=False)
    )
    fine = fine and ends[-1] <= 20 and (text != "" or dialect == "columns")
    if text == rle.DIALECTS[dialect].empty:
        fine = True
    if not fine:
        with pytest.raises(RleError):
            rle.decode(text, (4, 5), dialect)
        return
    flat = np.zeros(20, int)
    for start, length in pairs:
        flat[start - 1 : start - 1 + length] = 1
    assert np.array_equal(
        rle.decode(text, (4, 5), dialect), flat.reshape((4, 5), order="F" if dialect == "columns" else "C")
    )
