"""Each target's own definition, against slow references and values by hand."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import ndimage

from histofold import targets
from histofold.targets.edt import instance_distance
from histofold.targets.touching import touching_border

Labels = NDArray[np.int32]
SMALL = arrays.arrays(np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 4))


def _reference_distance(labels: Labels) -> NDArray[np.float64]:
    """SciPy's exact transform of each instance alone; what lies beyond the edge bounds nothing."""
    out = np.zeros(labels.shape)
    for label in np.unique(labels[labels > 0]):
        own = labels == label
        out[own] = float(1 << 14) if own.all() else ndimage.distance_transform_edt(own)[own]
    return out


@settings(max_examples=150, deadline=None)
@given(SMALL)
def test_instance_distance_is_the_exact_transform_of_each_instance(labels: Labels) -> None:
    assert np.allclose(instance_distance(labels), _reference_distance(labels))


def test_instance_distance_of_large_shapes(blobs: Callable[..., Labels]) -> None:
    labels = (blobs(5, size=150, count=8) > 0).astype(np.int32)
    assert np.allclose(instance_distance(labels), _reference_distance(labels))


def test_normalised_distance_by_hand() -> None:
    labels = np.zeros((7, 12), np.int32)
    labels[1:6, 1:6] = 1
    labels[3, 8] = 2
    encoded = targets.build("distance", edge=0.25).encode(labels)[0]
    ring = [0.25, 0.25 + 0.75 / 2, 1.0]
    assert encoded[3, :7].tolist() == pytest.approx([0, ring[0], ring[1], ring[2], ring[1], ring[0], 0])
    assert encoded[3, 8] == 1, "an instance of one pixel is all depth"
    assert targets.build("border_distance").encode(labels)[2, 3, 1:4].tolist() == pytest.approx([0, 0.5, 1])


def test_distance_of_the_authors_has_the_deepest_pixel_of_the_image_at_255() -> None:
    labels = np.zeros((12, 20), np.int32)
    labels[1:4, 1:4] = 1
    labels[1:10, 8:17] = 2
    encoded = targets.build("distance", scale="image").encode(labels)[0]
    assert encoded[5, 12] == 255
    assert encoded[2, 2] == pytest.approx(2 / 5 * 255)
    assert encoded[labels == 0].max() == 0
    empty = targets.build("distance", scale="image").encode(np.zeros((5, 5), int))
    assert empty.max() == 0, "no nuclei, and no division by zero"


@pytest.mark.parametrize("scale", ["instance", "image"])
def test_foreground_of_a_perfect_distance_is_the_mask(scale: str, blobs: Callable[..., Labels]) -> None:
    labels = blobs(3)
    target = targets.build("distance", scale=scale, activation="relu")
    bands = target.to_bands(torch.from_numpy(target.encode(labels))[None])[0]
    if scale == "instance":
        assert np.array_equal(bands[0].numpy() >= 0.5, labels > 0)
    else:
        assert np.array_equal(bands[0].numpy() >= 0.5, target.encode(labels)[0] >= 24)


def _reference_border(labels: Labels, reach: dict[int, int]) -> NDArray[np.bool_]:
    """For each pixel the two nearest instances, by looking at all pixels of all instances."""
    out = np.zeros(labels.shape, bool)
    points = {label: np.argwhere(labels == label) for label in reach}
    for y, x in np.ndindex(labels.shape):
        near = sorted((((found - (y, x)) ** 2).sum(axis=1).min(), label) for label, found in points.items())
        if len(near) > 1:
            width = min(reach[near[0][1]], reach[near[1][1]])
            out[y, x] = near[1][0] <= width * (width + 1)
    return out


@settings(max_examples=100, deadline=None)
@given(SMALL, st.integers(1, 3))
def test_border_is_where_the_two_nearest_instances_are_near(labels: Labels, width: int) -> None:
    reach = {int(label): width for label in np.unique(labels[labels > 0])}
    assert np.array_equal(touching_border(labels, 0.0, width, width), _reference_border(labels, reach))


def test_border_is_wider_between_large_objects_and_belongs_to_the_smaller() -> None:
    labels = np.zeros((60, 100), np.int32)
    labels[:30, :50], labels[:30, 50:] = 1, 2  # equivalent radius 21.9
    labels[50:54, 20:24], labels[50:54, 24:28] = 3, 4  # equivalent radius 2.3
    border = targets.build("border", width=0.15, narrowest=1, widest=4).encode(labels)[1]
    assert np.flatnonzero(border[15]).tolist() == [47, 48, 49, 50, 51, 52]  # 0.15 · 21.9 ≈ 3 on either side
    assert np.flatnonzero(border[52]).tolist() == [23, 24]
    assert border[40].max() == 0, "10 rows of background are no border"


def test_border_of_a_single_object_and_of_binary_masks_is_empty(blobs: Callable[..., Labels]) -> None:
    assert targets.build("border").encode((blobs(4) > 0).astype(np.uint8))[1].max() == 0


def test_ternary_single_by_hand() -> None:
    labels = np.zeros((6, 9), np.int32)
    labels[1:5, 1:5], labels[1:5, 5:8] = 1, 2
    encoded = targets.build("ternary").encode(labels)
    assert encoded.tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 2, 2, 2, 2, 2, 2, 2, 0],
        [0, 2, 1, 1, 2, 2, 1, 2, 0],
        [0, 2, 1, 1, 2, 2, 1, 2, 0],
        [0, 2, 2, 2, 2, 2, 2, 2, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]


def test_ternary_single_keeps_an_inside_of_every_instance(blobs: Callable[..., Labels]) -> None:
    labels = blobs(6)
    encoded = targets.build("ternary", radius=3).encode(labels)
    assert set(np.unique(labels[encoded == 1])) == set(np.unique(labels)) - {0}
    assert np.array_equal(encoded > 0, labels > 0)


def test_ternary_fullnet_erodes_twice_and_gives_the_outer_ring_to_the_background() -> None:
    y, x = np.indices((31, 31))
    disc = ((y - 15) ** 2 + (x - 15) ** 2 <= 8**2).astype(np.int32)
    plus, box = ndimage.generate_binary_structure(2, 1), np.hypot(*np.mgrid[-2:3, -2:3]) <= 2
    once = ndimage.binary_erosion(disc, plus)
    for radius, element in ((1, plus), (2, box)):
        encoded = targets.build("ternary", form="fullnet", radius=radius).encode(disc)
        assert np.array_equal(encoded == 1, ndimage.binary_erosion(once, element))
        assert np.array_equal(encoded > 0, ndimage.binary_dilation(once, plus))


@pytest.mark.parametrize(("radius", "expected"), [(8, 0.96), (3, 0.86), (2, 1.0)])
def test_dilation_gives_a_disc_back_from_the_double_erosion_as_measured(radius: int, expected: float) -> None:
    y, x = np.indices((31, 31))
    disc = (y - 15) ** 2 + (x - 15) ** 2 <= radius**2
    inside = targets.build("ternary", form="fullnet").encode(disc.astype(int)) == 1
    back = ndimage.binary_dilation(inside, np.hypot(*np.mgrid[-2:3, -2:3]) <= 2)
    assert (back & disc).sum() / (back | disc).sum() == pytest.approx(expected, abs=0.005)


def test_ternary_foreground_is_what_is_not_background() -> None:
    raw = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    bands = targets.build("ternary").to_bands(raw)
    probability = torch.softmax(raw, dim=1)
    assert torch.allclose(bands[:, 0], 1 - probability[:, 0], atol=1e-6)
    assert torch.allclose(bands[:, 1:], probability[:, 1:])


def test_flow_points_to_the_centre_by_hand() -> None:
    labels = np.zeros((7, 9), np.int32)
    labels[1:6, 1:6] = 1
    encoded = targets.build("flow").encode(labels)
    assert np.array_equal(encoded[0], labels)
    vectors = 2 * encoded[1:] - 1
    half = np.sqrt(0.5)
    assert vectors[:, 3, 3].tolist() == [0, 0], "nowhere to go from the centre"
    assert vectors[:, 1, 3].tolist() == [1, 0]
    assert vectors[:, 3, 5].tolist() == [0, -1]
    assert vectors[:, 5, 1].tolist() == pytest.approx([-half, half])
    assert vectors[:, 0, 8].tolist() == [0, 0], "no direction on background"


def test_flow_turns_with_the_image_as_test_time_views_expect(blobs: Callable[..., Labels]) -> None:
    tta = pytest.importorskip("histofold.inference.tta")
    target = targets.build("flow")
    names = [band.name for band in target.bands]
    # Odd squares: the pixel nearest to the centroid is a tie in other shapes.
    labels = np.zeros((21, 31), np.int32)
    labels[1:10, 1:10], labels[12:19, 3:8], labels[5:16, 15:28] = 1, 2, 3

    def bands(image: torch.Tensor) -> torch.Tensor:
        encoded = torch.from_numpy(target.encode(image[0, 0].numpy()))[None]
        return torch.cat([encoded[:, :1], 2 * encoded[:, 1:] - 1], dim=1)

    upright = torch.from_numpy(labels)[None, None]
    for view in tta.views("dihedral"):
        turned = bands(view.apply(upright).contiguous())
        assert torch.allclose(view.invert(turned, names), bands(upright), atol=1e-6)


def test_flow_bands_run_from_minus_one_to_one() -> None:
    raw = torch.tensor([-50.0, 0.0, 50.0]).reshape(1, 3, 1, 1)
    assert targets.build("flow").to_bands(raw).flatten().tolist() == pytest.approx([0, 0, 1])
