"""Outlines: where they lie, in which colour, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from histofold.errors import DataError
from histofold.report.overlay import BOTH, PREDICTION, TRUTH, boundary, outlines


def square(value: int = 1) -> np.ndarray:
    labels = np.zeros((9, 9), np.int32)
    labels[2:7, 2:7] = value
    return labels


def test_boundary_lies_inside_and_follows_the_square() -> None:
    edge = boundary(square())
    expected = square().astype(bool)
    expected[3:6, 3:6] = False
    np.testing.assert_array_equal(edge, expected)


def test_touching_objects_keep_a_line_each() -> None:
    labels = np.zeros((6, 10), np.int32)
    labels[:, :5] = 1
    labels[:, 5:] = 2
    edge = boundary(labels)
    assert edge[:, 4].all()
    assert edge[:, 5].all()
    assert not edge[:, [0, 1, 2, 3, 6, 7, 8, 9]].any(), "the image's own edge is no outline"


def test_thickness_widens_the_line() -> None:
    assert boundary(square(), 3).sum() > boundary(square(), 1).sum()


def test_outlines_use_three_colours_and_leave_the_image_alone() -> None:
    image = np.full((9, 9, 3), 90, np.uint8)
    moved = np.roll(square(), 1, axis=1)
    drawn = outlines(image, square(), moved)
    assert (image == 90).all()
    assert tuple(drawn[4, 2]) == TRUTH
    assert tuple(drawn[4, 7]) == PREDICTION
    assert tuple(drawn[2, 4]) == BOTH
    assert tuple(drawn[4, 4]) == (90, 90, 90)


def test_grey_images_and_nothing_to_draw() -> None:
    drawn = outlines(np.full((4, 5), 7, np.uint8), None, None)
    assert drawn.shape == (4, 5, 3)
    assert (drawn == 7).all()


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="truth has size"):
        outlines(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.int32), None)
    with pytest.raises(DataError, match="expected a uint8 image"):
        outlines(np.zeros((4, 5, 3), np.float32), None, None)  # type: ignore[arg-type]
