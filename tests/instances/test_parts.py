"""The pieces that decoders share, against scikit-image and SciPy."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import local_minima, reconstruction
from skimage.segmentation import watershed

from histofold import instances, metrics
from histofold.connected import parts
from histofold.instances.cleanup import apart, components, fill_holes, mend, renumber
from histofold.instances.dilation import dilate
from histofold.instances.flood import flood, levels
from histofold.instances.hminima import clear_lines
from histofold.instances.minima import h_minima, reconstruct, regional_minima

Labels = NDArray[np.int32]
GREY = arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 20))
SMALL = arrays.arrays(np.int32, (9, 11), elements=st.sampled_from([0, 0, 0, 1, 2, 3]))


@settings(max_examples=200, deadline=None)
@given(GREY, st.integers(1, 30))
def test_reconstruction_and_h_minima_agree_with_scikit_image(surface: NDArray[np.uint8], depth: int) -> None:
    raised = np.minimum(surface.astype(int) + depth, 255)
    assert np.array_equal(h_minima(surface, depth), reconstruction(raised, surface, method="erosion"))


def test_reconstruction_of_a_large_noisy_surface_agrees_with_scikit_image() -> None:
    rng = np.random.default_rng(0)
    floor = rng.integers(0, 200, (150, 170), dtype=np.uint8)
    seed = np.maximum(floor, rng.integers(0, 256, floor.shape, dtype=np.uint8))
    assert np.array_equal(reconstruct(seed, floor), reconstruction(seed, floor, method="erosion"))


def test_reconstruction_through_a_spiral_needs_the_queue() -> None:
    floor = np.full((9, 9), 200, np.uint8)
    for cells in ((1, slice(1, 8)), (slice(1, 8), 7), (7, slice(1, 8)), (slice(3, 8), 1), (3, slice(1, 6))):
        floor[cells] = 0
    floor[3:6, 5] = 0
    seed = np.full((9, 9), 255, np.uint8)
    seed[5, 5] = 0
    assert np.array_equal(reconstruct(seed, floor), reconstruction(seed, floor, method="erosion"))
    assert reconstruct(seed, floor)[1, 1] == 0


@settings(max_examples=200, deadline=None)
@given(GREY)
def test_regional_minima_agree_with_scikit_image(surface: NDArray[np.uint8]) -> None:
    if surface.min() == surface.max():
        assert regional_minima(surface).all()
    elif min(surface.shape) > 1:
        assert np.array_equal(regional_minima(surface), local_minima(surface, connectivity=2))


def test_flood_agrees_with_scikit_image_where_levels_differ() -> None:
    rng = np.random.default_rng(1)
    smooth = ndimage.gaussian_filter(rng.random((120, 140)), 4)
    surface = levels(((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32))
    mask = surface < 190
    markers = components(regional_minima(surface) & mask)
    ours, theirs = flood(surface, markers, mask), watershed(surface, markers, mask=mask)
    assert np.array_equal(ours > 0, theirs > 0)
    assert (ours != theirs).mean() < 0.02, "plateaus of equal level are split by the order of arrival"
    assert metrics.match(metrics.contingency(theirs.astype(np.int32), ours), 0.8).f1 > 0.97


def test_flood_keeps_to_mask_and_markers() -> None:
    surface = np.zeros((1, 9), np.uint8)
    markers = np.array([[0, 7, 0, 0, 0, 3, 0, 0, 9]], np.int32)
    mask = np.array([[1, 1, 1, 1, 1, 1, 0, 1, 0]], bool)
    assert flood(surface, markers, mask).tolist() == [[7, 7, 7, 7, 3, 3, 0, 0, 0]]
    surface[0, 2] = 200  # a ridge: the far side reaches it first
    assert flood(surface, markers, mask).tolist() == [[7, 7, 7, 3, 3, 3, 0, 0, 0]]


def test_levels_are_on_a_fixed_scale() -> None:
    assert levels(np.array([-1, 0, 0.5, 1, 2], np.float32)).tolist() == [0, 0, 128, 255, 255]
    assert levels(np.array([0, 127.4, 255], np.float32), 0, 255).tolist() == [0, 127, 255]


@settings(max_examples=100, deadline=None)
@given(SMALL)
def test_filled_holes_are_those_that_scipy_fills_in_each_instance(labels: Labels) -> None:
    expected = labels.copy()
    for value in np.unique(labels[labels > 0]):
        holes = ndimage.binary_fill_holes(labels == value) & (labels == 0)
        parts, count = ndimage.label(labels == 0)
        # A hole that holds or touches another instance is not a hole of this one alone.
        for part in range(1, count + 1):
            hole = parts == part
            around = ndimage.binary_dilation(hole) & ~hole
            if holes[hole].all() and set(np.unique(labels[around])) == {value}:
                expected[hole] = value
    assert np.array_equal(fill_holes(labels, 1000), expected)


@settings(max_examples=100, deadline=None)
@given(SMALL)
def test_parts_are_those_that_scipy_finds_label_by_label(labels: Labels) -> None:
    found, owner = parts(labels)
    assert found.dtype == np.int32
    assert np.array_equal(owner[found], labels)
    firsts = [int(np.flatnonzero(found == part)[0]) for part in range(1, len(owner))]
    assert firsts == sorted(firsts), "numbered by their first pixels"
    expected = [ndimage.label(labels == value, np.ones((3, 3)))[0] for value in np.unique(labels[labels > 0])]
    assert len(owner) - 1 == sum(int(one.max()) for one in expected)
    for one in expected:
        for part in range(1, one.max() + 1):
            assert len(np.unique(found[one == part])) == 1


def test_parts_of_a_comb_a_spiral_and_many_labels() -> None:
    comb = np.ones((50, 51), np.int32)
    comb[:-1, 1::2] = 0  # teeth that meet in the last row
    assert parts(comb)[1].tolist() == [0, 1]
    assert parts(comb[:-1])[1].tolist() == [0, *[1] * 26]
    many = np.arange(1, 90_001, dtype=np.int32).reshape(300, 300)
    found, owner = parts(many)
    assert np.array_equal(found, many)
    assert len(owner) == 90_001
    assert parts(np.zeros((0, 4), np.int32))[1].tolist() == [0]


def test_only_what_is_not_connected_is_taken_apart() -> None:
    labels = np.array([[5, 0, 5, 2], [5, 0, 0, 5]], np.int32)
    assert apart(labels).tolist() == [[1, 0, 2, 3], [1, 0, 0, 2]]
    connected = labels[:, :2]
    assert apart(connected) is connected


def test_holes_above_the_limit_stay() -> None:
    labels = np.ones((7, 7), np.int32)
    labels[2:4, 2:5] = 0
    assert fill_holes(labels, 5)[2, 2] == 0
    assert fill_holes(labels, 6)[2, 2] == 1
    assert mend(labels, 0, 0) is labels


def test_renumbering_keeps_the_order_and_drops_what_is_small() -> None:
    labels = np.array([[0, 9, 9, 4], [7, 7, 7, 0]], np.int32)
    assert renumber(labels).tolist() == [[0, 3, 3, 1], [2, 2, 2, 0]]
    assert renumber(labels, 2).tolist() == [[0, 2, 2, 0], [1, 1, 1, 0]]


def test_smoothing_takes_spurs_and_fills_notches() -> None:
    labels = np.zeros((12, 12), np.int32)
    labels[3:9, 3:9] = 1
    labels[2, 5] = 1  # a spur
    labels[5, 3] = 0  # a notch
    smooth = mend(labels, 0, 1)
    assert smooth[2, 5] == 0
    assert smooth[5, 3] == 1
    assert smooth[6, 6] == 1


@pytest.mark.parametrize("radius", [1, 2, 4])
def test_dilation_of_one_instance_is_that_of_scipy(radius: int) -> None:
    rng = np.random.default_rng(radius)
    labels = (ndimage.gaussian_filter(rng.random((40, 45)), 3) > 0.52).astype(np.int32) * 5
    axis = np.arange(-radius, radius + 1)
    disc = axis[:, None] ** 2 + axis**2 <= radius * radius
    expected = ndimage.grey_dilation(labels, footprint=disc, mode="constant")
    assert np.array_equal(dilate(labels, radius), expected)
    assert np.array_equal(dilate(labels, radius, higher_wins=True), expected)


def test_colliding_dilations(nuclei: Callable[..., Labels]) -> None:
    labels = np.array([[1, 0, 0, 0, 2], [1, 0, 0, 0, 0]], np.int32)
    assert dilate(labels, 2).tolist() == [[1, 1, 1, 2, 2], [1, 1, 1, 2, 2]]
    crowded = nuclei(0)
    disc = np.hypot(*np.mgrid[-2:3, -2:3]) <= 2
    assert np.array_equal(dilate(crowded, 2, higher_wins=True), ndimage.grey_dilation(crowded, footprint=disc))
    grown = dilate(crowded, 2)
    assert np.array_equal(grown[crowded > 0], crowded[crowded > 0]), "nobody loses a pixel"


PROBE = [(1, 2, 438), (7, 2, 438), (40, 2, 438), (65, 1, 464), (200, 1, 464)]


@pytest.mark.parametrize(("depth", "count", "pixels"), PROBE)
def test_h_minima_watershed_of_two_discs_as_measured(depth: int, count: int, pixels: int) -> None:
    """The authors' code on two overlapping discs of radius 9, 464 pixels: what it kept at each lambda."""
    y, x = np.indices((64, 64))
    mask = ((y - 32) ** 2 + (x - 25) ** 2 <= 81) | ((y - 32) ** 2 + (x - 38) ** 2 <= 81)
    assert mask.sum() == 464
    distance = ndimage.distance_transform_edt(mask)
    band = (distance / distance.max()).astype(np.float32)
    options = {"level": 24, "depth": depth, "min_size": 0, "max_hole": 0}
    found = instances.build("hminima", lines=True, **options)({"distance": band})
    assert (found.max(), np.count_nonzero(found)) == (count, pixels)
    whole = instances.build("hminima", **options)({"distance": band})
    assert (whole.max(), np.count_nonzero(whole)) == (count, 464), "without lines no pixel is lost"


def test_the_commonest_label_is_no_background() -> None:
    """A nucleus that fills most of the image stays the object."""
    band = np.ones((64, 64), np.float32)
    band[24:32, 20:44] = 0
    assert np.array_equal(instances.build("hminima", max_hole=0)({"distance": band}) > 0, band > 0)


def test_lines_part_touching_instances() -> None:
    labels = np.array([[1, 1, 1, 2, 2, 0, 3]] * 3, np.int32)
    assert clear_lines(labels)[1].tolist() == [1, 1, 0, 0, 2, 0, 3]
