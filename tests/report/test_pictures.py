"""Vector outlines and pictures within their bytes."""

from __future__ import annotations

import base64
import re

import cv2
import numpy as np
import pytest

from histofold.report.gallery import choose
from histofold.report.pictures import layers, stretched, unmatched, webp

SIDE = 100


def boxes(*places: tuple[int, int, int, int]) -> np.ndarray:
    labels = np.zeros((SIDE, SIDE), np.int32)
    for value, (y0, x0, y1, x1) in enumerate(places, start=1):
        labels[y0:y1, x0:x1] = value
    return labels


def filled(path: str, units: int = 1000) -> np.ndarray:
    """Pixels (SIDE, SIDE) that a path encloses, drawn anew from its text."""
    canvas = np.zeros((units, units), np.uint8)
    for piece in re.findall(r"M[^z]+z", path):
        numbers = [int(n) for n in re.findall(r"-?\d+", piece.replace("h1v1h-1", ""))]
        points = np.cumsum(np.array(numbers).reshape(-1, 2), axis=0)
        cv2.fillPoly(canvas, [points.astype(np.int32)], 1)
    return cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def test_paths_enclose_their_objects() -> None:
    labels = boxes((10, 20, 40, 60), (50, 50, 90, 95))
    y, x = np.mgrid[:SIDE, :SIDE]
    labels[(y - 75) ** 2 + (x - 20) ** 2 < 15**2] = 3
    drawn = layers(labels, labels, True)
    assert (drawn.view_width, drawn.view_height) == (1000, 1000)
    assert drawn.truth == drawn.prediction
    assert not drawn.missed
    assert not drawn.false
    found = filled(drawn.truth)
    overlap = (found & (labels > 0)).sum() * 2 / (found.sum() + (labels > 0).sum())
    assert overlap > 0.95


def test_shape_of_the_box_follows_the_image() -> None:
    drawn = layers(None, np.ones((50, 200), np.int32), True)
    assert (drawn.view_width, drawn.view_height) == (1000, 250)
    assert not drawn.truth
    assert drawn.prediction


def test_difference_of_instances_names_objects_without_partner() -> None:
    truth = boxes((10, 10, 30, 30), (50, 50, 70, 70))
    prediction = boxes((11, 11, 31, 31), (80, 10, 95, 30))
    missed, false = unmatched(truth, prediction)
    np.testing.assert_array_equal(missed > 0, truth == 2)
    np.testing.assert_array_equal(false > 0, prediction == 2)


def test_half_an_overlap_is_no_partner() -> None:
    truth, prediction = boxes((10, 10, 30, 30)), boxes((10, 10, 20, 30))
    missed, false = unmatched(truth, prediction)
    assert missed.any()
    assert false.any()


def test_difference_of_masks_is_pixels_without_slivers() -> None:
    truth, prediction = boxes((10, 10, 60, 60)), boxes((10, 11, 60, 61))
    prediction[70:90, 70:90] = 1
    drawn = layers(truth, prediction, False)
    assert not drawn.missed, "a line one pixel wide is no finding"
    np.testing.assert_allclose(filled(drawn.false).sum(), 400, rtol=0.15)


def test_an_object_of_one_pixel_is_still_drawn() -> None:
    assert layers(boxes((5, 5, 6, 6)), boxes((5, 5, 6, 6)), True).truth.endswith("h1v1h-1z")


def test_webp_keeps_to_its_bytes_and_size() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    uri = webp(noise, 512, 40_000)
    assert uri.startswith("data:image/webp;base64,")
    assert len(uri) < 42_000
    read = cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    assert read is not None
    assert max(read.shape) <= 512
    assert read.shape[1] / read.shape[0] == pytest.approx(4 / 3, rel=0.02)


def test_webp_keeps_red_red_and_enlarges_nothing() -> None:
    image = np.zeros((30, 40, 3), np.uint8)
    image[..., 0] = 200
    read = cv2.imdecode(
        np.frombuffer(base64.b64decode(webp(image, 512, 10_000).split(",")[1]), np.uint8), cv2.IMREAD_COLOR
    )
    assert read is not None
    assert read.shape == (30, 40, 3)
    assert abs(int(read[..., 2].mean()) - 200) < 8
    assert read[..., 0].mean() < 20


def test_dark_images_are_shown_brighter_and_others_are_not() -> None:
    dark = np.zeros((20, 20, 3), np.uint8)
    dark[5:15, 5:15] = 40
    assert 200 <= stretched(dark).max() <= 255
    bright = np.full((20, 20, 3), 180, np.uint8)
    assert stretched(bright) is bright


def test_choose_prefers_the_worst_and_spans_the_rest() -> None:
    import pandas as pd

    scores = pd.DataFrame({"sample_id": [f"{i:03}" for i in range(100)], "score": np.linspace(0, 1, 100)})
    chosen = choose(scores, 20)
    assert len(set(chosen)) == 20
    assert chosen[:10] == [f"{i:03}" for i in range(10)]
    assert chosen[-1] == "099"
    assert choose(scores, 100) == [f"{i:03}" for i in range(100)]
