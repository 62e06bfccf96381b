"""Which images are mixed, and what cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from histofold import competitions, targets
from histofold.competitions.base import Competition
from histofold.config import CompetitionConfig
from histofold.errors import ConfigError
from histofold.preprocess import Preprocess
from histofold.tiles.augment import AugmentOptions, beyond, warp
from histofold.tiles.dataset import CropDataset
from histofold.tiles.mixing import Crop, mosaic, paste
from histofold.tiles.prepare import prepare
from histofold.tiles.store import Recipe, Store
from histofold.training.preprocessing import check_mixing


@pytest.fixture
def custom(tmp_path: Path) -> Competition:
    """Four images, each of one grey of its own, with a disc in the middle."""
    for number in range(4):
        labels = cv2.circle(np.zeros((80, 80), np.uint8), (40, 40), 12, 1, -1)
        for part, content in (("images", np.full((80, 80, 3), 40 * number, np.uint8)), ("labels", labels)):
            (tmp_path / "custom" / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "custom" / part / f"{number}.png"), content)
    return competitions.open(
        CompetitionConfig("custom", "folders", None, {"folder": str(tmp_path / "custom")}), tmp_path
    )


def test_nuclei_are_pasted_from_images_of_their_own_stratum(tmp_path: Path, custom: Competition) -> None:
    prepare(custom, Recipe("whole", 256, 1.0, ("grid",), 0.0), tmp_path / "store", workers=1)
    store = Store.open(tmp_path / "store")
    for strata, expected in ((["a", "a", "b", "b"], {0, 40}), (None, {0, 40, 80, 120})):
        data = CropDataset(
            store, store.tiles, targets.build("foreground"), Preprocess(), AugmentOptions(copy_paste=1.0),
            crop=64, count=8, bins=0, seed=0, strata=strata,
        )  # fmt: skip
        random = np.random.default_rng(0)
        assert {40 * data._drawn(random, 0) for _ in range(60)} == expected
        assert data[(0, 0)]["image"].shape == (3, 64, 64)


def test_a_pasted_nucleus_has_its_own_pixels_and_a_soft_outline() -> None:
    disc = cv2.circle(np.zeros((48, 48), np.uint8), (24, 24), 10, 5, -1).astype(np.int32)
    valid, nothing = np.ones((48, 48), np.uint8), np.zeros_like(disc)
    base = Crop(np.full((48, 48, 3), 20, np.uint8), nothing, valid, nothing)
    donor = Crop(np.full((48, 48, 3), 220, np.uint8), disc, valid, nothing)
    made = paste(base, donor, np.random.default_rng(0))
    assert np.array_equal(made.labels, (disc > 0).astype(np.int32)), "the first free number"
    assert (made.pixels[cv2.erode((disc > 0).astype(np.uint8), np.ones((3, 3))) > 0] == 220).all()
    across = made.pixels[24, :, 0].astype(int)
    assert np.abs(np.diff(across)).max() < 100, "no step of 200 grey levels tells where it was pasted"
    crowded = base._replace(labels=(disc == 0).astype(np.int32))
    assert paste(crowded, donor, np.random.default_rng(0)) is crowded, "no room"


def test_nuclei_that_the_donors_edge_cuts_are_not_pasted() -> None:
    """In the middle of another image their straight sides would be taught as outlines."""
    labels = np.zeros((60, 60), np.uint8)
    cv2.circle(labels, (2, 15), 9, 1, -1)
    cv2.circle(labels, (12, 45), 8, 2, -1)
    shift = np.array([[1.0, 0.0, -20.0], [0.0, 1.0, 0.0]])  # the crop reaches 20 pixels beyond the left edge
    donor = Crop(*warp(np.dstack([labels] * 3), labels, shift, 60), beyond(labels, shift, 60))
    nothing = np.zeros((60, 60), np.int32)
    base = Crop(np.zeros((60, 60, 3), np.uint8), nothing, np.ones((60, 60), np.uint8), nothing)
    assert (donor.mirrored == 2).any(), "a whole nucleus, whose mirror image is in sight"
    for seed in range(10):
        pasted = paste(base, donor, np.random.default_rng(seed)).labels
        assert np.array_equal(pasted > 0, donor.labels == 2)


def test_nothing_is_pasted_beside_a_mirrored_nucleus() -> None:
    shape = (40, 40)
    nothing, valid, mirrored = np.zeros(shape, np.int32), np.ones(shape, np.uint8), np.zeros(shape, np.int32)
    valid[:, :10], mirrored[10:30, 5:10] = 0, 3
    base = Crop(np.zeros((*shape, 3), np.uint8), nothing, valid, mirrored)
    for left, expected in ((10, 0), (11, 4)):
        labels = nothing.copy()
        labels[15:25, left : left + 8] = 1
        donor = Crop(np.full((*shape, 3), 99, np.uint8), labels, np.ones(shape, np.uint8), nothing)
        assert paste(base, donor, np.random.default_rng(0)).labels.max() == expected


def test_what_cannot_be_mixed_is_refused(custom: Competition) -> None:
    both = AugmentOptions(copy_paste=1.0, mosaic=1.0)
    check_mixing(both, custom)
    with pytest.raises(ConfigError, match="probability"):
        check_mixing(replace(both, mosaic=1.5), custom)
    custom.truth = "mask"
    check_mixing(AugmentOptions(mosaic=0.5), custom)
    with pytest.raises(ConfigError, match="without instances"):
        check_mixing(both, custom)


def test_a_mosaic_numbers_mirrored_labels_as_the_instances_they_continue() -> None:
    shape = (8, 8)
    labels, mirrored, valid = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.ones(shape, np.uint8)
    labels[:, 1:3], mirrored[:, :1], valid[:, :1] = 7, 7, 0  # a nucleus cut by the image's left edge
    part = Crop(np.zeros((*shape, 3), np.uint8), labels, valid, mirrored)
    made = mosaic([part] * 4, (4, 4))
    for rows in (slice(None, 4), slice(4, None)):
        assert np.unique(made.labels[rows, 1:3]).tolist() == np.unique(made.mirrored[rows, :1]).tolist()
    assert len(np.unique(made.labels)) == 3, "the two left parts, and none on the right"
    assert not made.mirrored[made.valid > 0].any()
