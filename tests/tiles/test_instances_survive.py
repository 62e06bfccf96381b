"""Augmentation never splits or merges instances except by cropping; mosaic and copy-paste do not either."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from histofold.connected import parts
from histofold.tiles.augment import AugmentOptions, beyond, centred, draw_crop, warp
from histofold.tiles.mixing import Crop, mosaic, paste, seams

ALL = AugmentOptions(rotate=180, scale=(0.6, 1.8), shear=10)
CELL = 14
SLIVER = 6
"""Pixels of an instance that a mosaic's seam may leave apart: a line thinner than a pixel is sampled in dashes."""


def drawn(height: int, width: int, seed: int) -> NDArray[np.uint16]:
    """Convex instances, a disc or a block a cell; blocks of neighbouring cells touch."""
    random = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.uint16)
    label = 0
    for y in range(0, height - CELL + 1, CELL):
        for x in range(0, width - CELL + 1, CELL):
            label += 1
            kind = random.integers(3)
            if kind == 1:
                labels[y : y + CELL, x : x + CELL] = label
            elif kind == 2:
                cv2.circle(labels, (x + CELL // 2, y + CELL // 2), int(random.integers(4, 7)), label, -1)
    return labels


def crop_of(seed: int, options: AugmentOptions = ALL, side: int = 64) -> Crop:
    random = np.random.default_rng(seed)
    labels = drawn(int(random.integers(40, 110)), int(random.integers(40, 110)), seed)
    shade = (labels % 200 + 40).astype(np.uint8) * (labels > 0)
    image = np.repeat(shade[..., None], 3, axis=2)
    matrix = draw_crop(options, random, len(labels), labels.shape[1], side)
    return Crop(*warp(image, labels, matrix, side), beyond(labels, matrix, side))


def pieces(mask: NDArray[np.bool_]) -> list[int]:
    """Pixels of the connected parts of a mask, the largest first."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return sorted(stats[1:, cv2.CC_STAT_AREA].tolist(), reverse=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.integers(30, 110), st.integers(30, 110), st.sampled_from([32, 64, 96]))
def test_augmentation_never_splits_or_merges_instances_except_by_cropping(
    seed: int, height: int, width: int, side: int
) -> None:
    labels = drawn(height, width, seed)
    random = np.random.default_rng(seed)
    matrix = draw_crop(ALL, random, height, width, side)
    image = np.zeros((height, width, 3), np.uint8)
    _, truth, valid = warp(image, labels, matrix, side)
    assert len(parts(truth)[1]) == len(np.unique(np.append(truth, 0)))  # Not split, not by a single pixel.
    shrink = abs(float(np.linalg.det(matrix[:, :2])))  # image pixels of a crop's pixel
    for label in np.unique(truth[truth > 0]):
        # Not merged: it does not take what belongs to a neighbour.
        assert (truth == label).sum() * shrink <= 1.25 * (labels == label).sum() + 12
    inverse = cv2.invertAffineTransform(matrix)
    for label in np.unique(labels[labels > 0]):
        ys, xs = np.nonzero(labels == label)
        corners = np.stack([xs, ys, np.ones(len(xs))])
        x, y = inverse @ corners
        if x.min() >= 1 and y.min() >= 1 and x.max() <= side - 2 and y.max() <= side - 2:
            # Not lost: what lies inside of the crop is there, as large as the magnification makes it.
            assert (truth == label).sum() * shrink >= 0.75 * len(xs) - 12
    assert not truth[valid == 0].any()


def test_a_neck_that_the_crop_is_too_coarse_for_leaves_one_part_and_no_wrong_label() -> None:
    labels = np.zeros((80, 80), np.uint16)
    labels[20:40, 20:40] = labels[20:36, 50:60] = labels[30, 40:50] = 3  # a neck of one pixel
    labels[60:70, 20:30] = 4
    half = np.array([[2.0, 0, 1], [0, 2.0, 1]])
    _, truth, valid = warp(np.zeros((80, 80, 3), np.uint8), labels, half, 40)
    assert len(parts(truth)[1]) == 3
    assert (truth == 3).sum() == 100
    assert valid[10:18, 25:30].sum() == 0, "the part without a label has no weight"
    assert (valid == 0).sum() <= 45
    assert (truth == 4).sum() == 25


@pytest.mark.parametrize("seed", range(20))
def test_the_objects_of_a_mask_all_stay_though_they_have_one_label(seed: int) -> None:
    instances = drawn(90, 100, seed)
    mask = (instances > 0).astype(np.uint8)
    image = np.zeros((90, 100, 3), np.uint8)
    matrix = draw_crop(ALL, np.random.default_rng(seed), 90, 100, 64)
    _, truth, valid = warp(image, mask, matrix, 64, instances=False)
    plain = cv2.warpAffine(mask, matrix, (64, 64), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    assert plain.sum() > 100
    assert (truth != plain).sum() <= 2, "but for pixels on a tie"
    assert valid[plain > 0].all()


def dumbbell() -> NDArray[np.uint8]:
    """Label 1: two blocks (20 × 20) with a neck of one pixel between them, in 100 × 100."""
    labels = np.zeros((100, 100), np.uint8)
    labels[30:50, 20:40] = labels[30:50, 60:80] = labels[39, 40:60] = 1
    return labels


def test_a_neck_that_two_samplings_would_see_differently_leaves_one_part() -> None:
    labels = dumbbell()
    labels[2:6, 45:55] = 2
    matrix = centred(2.2 * np.eye(2), (50.3, 39.6), 48)
    for kind in (np.uint8, np.uint16, np.uint32):
        _, truth, _ = warp(np.zeros((100, 100, 3), np.uint8), labels.astype(kind), matrix, 48)
        assert len(pieces(truth == 1)) == 1, kind


@pytest.mark.parametrize("far", [False, True])
def test_an_image_of_one_instance_is_no_mask(far: bool) -> None:
    labels = dumbbell()
    if far:
        labels[90:95, 5:10] = 2
    turn = np.deg2rad(20)
    linear = 2.2 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    image, mask = np.zeros((100, 100, 3), np.uint8), np.minimum(labels, 1)
    torn = 0
    for y in np.arange(35, 45, 0.5):
        matrix = centred(linear, (50.0, y), 48)
        _, truth, valid = warp(image, labels, matrix, 48)
        assert len(pieces(truth == 1)) == 1
        _, whole, real = warp(image, mask, matrix, 48, instances=False)
        assert not valid[(whole > 0) & (truth == 0)].any(), "what is left out of an instance weighs nothing"
        assert real[whole > 0].all(), "a mask loses nothing"
        torn += len(pieces(whole > 0)) > 1 + far
    assert torn, "the neck is too thin for such a crop"


def test_parts_of_a_label_that_are_apart_in_the_truth_all_stay() -> None:
    labels = np.zeros((80, 80), np.uint16)
    labels[10:20, 10:20] = labels[40:46, 40:46] = 5
    labels[60:70, 20:30] = 6
    _, truth, valid = warp(np.zeros((80, 80, 3), np.uint8), labels, np.array([[2.0, 0, 1], [0, 2.0, 1]]), 39)
    assert ((truth == 5).sum(), (truth == 6).sum()) == (34, 25)
    assert valid[truth > 0].all()


def test_what_the_crop_cuts_in_two_keeps_both_parts() -> None:
    labels = np.zeros((80, 80), np.uint16)
    labels[20:60, 20:30] = labels[20:60, 40:50] = labels[20:30, 20:50] = 7  # a horseshoe
    turned = np.array([[1.0, 0.02, 0], [-0.02, 1.0, 35]])  # the crop begins below its bend
    _, truth, valid = warp(np.zeros((80, 80, 3), np.uint8), labels, turned, 60)
    assert len(parts(truth)[1]) == 3
    assert valid[:40].all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000))
def test_a_mosaic_keeps_the_instances_of_its_parts(seed: int) -> None:
    crops = tuple(crop_of(4 * seed + number) for number in range(4))
    made = mosaic(crops, seams(np.random.default_rng(seed), 64))
    assert made.labels.shape == (64, 64)
    owners = np.zeros((64, 64), int) - 1
    for label in np.unique(made.labels[made.labels > 0]):
        place = made.labels == label
        same = [
            number
            for number, part in enumerate(crops)
            if len(np.unique(part.labels[place])) == 1 and part.labels[place][0] > 0
        ]
        assert same, "every label lies within one instance of one part"
        assert sum(pieces(place)[1:]) <= SLIVER
    for number, part in enumerate(crops):
        owners[(made.pixels == part.pixels).all(axis=-1) & ((made.labels > 0) == (part.labels > 0))] = number
    assert (owners >= 0).all(), "every pixel and its label come from one and the same part"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000))
def test_copy_paste_covers_nothing_and_joins_nothing(seed: int) -> None:
    crop, other = crop_of(2 * seed), crop_of(2 * seed + 1)
    made = paste(crop, other, np.random.default_rng(seed))
    old = crop.labels > 0
    assert np.array_equal(made.labels[old], crop.labels[old])
    new = (made.labels > 0) & ~old
    for label in np.unique(made.labels[new]):
        place = made.labels == label
        source = np.unique(other.labels[place])
        assert len(source) == 1
        assert np.array_equal(other.labels == source[0], place), "all of it that the other crop has"
        assert crop.valid[place].all()
    assert np.array_equal(made.valid, crop.valid)
    far = cv2.dilate(new.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0
    assert np.array_equal(made.pixels[far], crop.pixels[far])


def test_copy_paste_does_add_instances() -> None:
    added = 0
    for seed in range(20):
        crop, other = crop_of(2 * seed), crop_of(2 * seed + 1)
        free = crop._replace(labels=np.zeros_like(crop.labels), valid=np.ones_like(crop.valid))
        made = paste(free, other, np.random.default_rng(seed))
        added += len(np.unique(made.labels)) - 1
    assert added > 50


@pytest.mark.parametrize("option", ["mosaic", "copy_paste"])
def test_they_are_off_by_default(option: str) -> None:
    assert getattr(AugmentOptions(), option) == 0
    for path in sorted((Path(__file__).parents[2] / "configs" / "augment").glob("*.yaml")):
        assert yaml.safe_load(path.read_text())[option] == 0, path.name
