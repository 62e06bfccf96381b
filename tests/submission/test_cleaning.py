"""Small objects and holes of a submission: the same settings for masks and instances, for test sets and own images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from histofold import instances, rle
from histofold.competitions import images
from histofold.competitions.base import Place
from histofold.competitions.folders import Folders
from histofold.config import SubmitConfig
from histofold.files import read_json, write_json
from histofold.inference.bandfile import BandFile, BandFileWriter
from histofold.inference.ensemble import Ensemble
from histofold.instances.cleanup import components
from histofold.submission.encode import EncodeTask, cleaned, encode, mask_text
from histofold.submission.own import labels_of
from histofold.targets.foreground import Foreground

LABELS = hnp.arrays(np.int32, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 3))


def none(**more: int) -> SubmitConfig:
    return SubmitConfig(send=False, message=None, **{"min_area": 0, "max_hole": 0, **more})


def test_instances_lose_small_ones_and_holes_of_their_own() -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[1:9, 1:9] = 4
    labels[3:5, 3:5] = 0  # a hole of 4 pixels
    labels[6:8, 3:5] = 7  # an instance in a hole
    labels[1:9, 10:20] = 2
    labels[3, 12] = 0
    labels[12:16, 1:5], labels[12:16, 7:11] = 5, 6
    labels[12, 5:7] = labels[15, 5:7] = 5
    labels[13:15, 5:7] = 0  # between 5 and 6
    only_small = cleaned(labels, 5, 0)
    assert sorted(np.unique(only_small)) == [0, 1, 2, 3, 4], "numbered on in their old order"
    assert (only_small[6:8, 3:5] == 0).all()
    filled = cleaned(labels, 0, 4)
    assert (filled[3:5, 3:5] == 4).all()
    assert filled[3, 12] == 2
    assert (filled[6:8, 3:5] == 7).all(), "another instance is no hole"
    assert (filled[13:15, 5:7] == 0).all(), "nor is what lies between two"
    assert (cleaned(labels, 0, 3)[3:5, 3:5] == 0).all()
    assert (cleaned(labels, 5, 4)[6:8, 3:5] == only_small[2, 2]).all(), "what was dropped is part of the hole"
    assert cleaned(labels, 0, 0) is labels


@given(LABELS, st.integers(0, 12), st.integers(0, 12))
def test_nothing_is_taken_from_an_instance_that_stays(labels: Any, min_area: int, max_hole: int) -> None:
    out = cleaned(labels, min_area, max_hole)
    areas = np.bincount(labels.ravel(), minlength=4)
    kept = [label for label in range(1, 4) if areas[label] >= max(1, min_area)]
    assert len(np.unique(out[out > 0])) == len(kept)
    for label in kept:
        assert len(np.unique(out[labels == label])) == 1
        assert out[labels == label][0] > 0
    grown = (out > 0) & ~np.isin(labels, kept)
    _, holes = cv2.connectedComponents(grown.astype(np.uint8), connectivity=4)
    assert np.bincount(holes.ravel())[1:].max(initial=0) <= max_hole


@given(LABELS, st.integers(0, 12), st.integers(0, 12))
def test_one_instance_is_cleaned_as_a_mask_is(labels: Any, min_area: int, max_hole: int) -> None:
    parts = components(labels > 1)
    mask = rle.RunMask.from_mask((labels > 1).astype(np.uint8)).cleaned(min_area, 0)
    assert np.array_equal(cleaned(parts, min_area, 0) > 0, mask.window(0, 0, *labels.shape) > 0)
    if parts.max() == 1:
        whole = rle.RunMask.from_mask(parts > 0).cleaned(0, max_hole)
        assert np.array_equal(cleaned(parts, 0, max_hole) > 0, whole.window(0, 0, *labels.shape) > 0)


def write_mask(path: Path) -> NDArray[np.uint8]:
    """A band file at scale 2 with a large object that has a hole, and a speck."""
    codes = np.zeros((1, 30, 40), np.uint8)
    codes[0, 4:20, 4:20], codes[0, 9:12, 9:12], codes[0, 24:26, 30:32] = 255, 0, 255
    with BandFileWriter(path, Foreground().bands, 30, 40, 2.0, 59, 79) as writer:
        writer.write_rows(0, codes)
    return codes[0]


def ensemble_of(**more: Any) -> Ensemble:
    values = {"competition": "custom", "name": "one", "metric": "dice", "members": (), "folds": (0,), "partial": False}
    return Ensemble(**{**values, "bands": ("foreground",), "checkpoints": (), **more})


@pytest.mark.parametrize("empty", [False, True])
def test_masks_of_own_images_are_those_of_a_submission(tmp_path: Path, empty: bool) -> None:
    path = tmp_path / "a.tif"
    write_mask(path)
    ensemble = ensemble_of(threshold=256 / 255 if empty else 0.5)

    def areas(**more: int) -> list[int]:
        labels = labels_of(ensemble, path, path, None, none(**more))
        assert (labels.shape, labels.dtype) == ((59, 79), np.uint8)
        return np.bincount(components(labels > 0).ravel())[1:].tolist()

    def submitted(min_area: int, max_hole: int) -> NDArray[np.uint8]:
        with BandFile(path) as file:
            text = mask_text(file, ensemble.threshold or 0.0, (59, 79), "columns", min_area, max_hole)
        return rle.decode(text, (59, 79))

    if empty:
        assert areas() == areas(min_area=5, max_hole=5) == []
        return
    plain = areas()
    assert len(plain) == 2
    assert areas(min_area=min(plain) + 1) == [max(plain)]
    assert areas(min_area=min(plain)) == plain
    assert max(areas(max_hole=60)) > max(plain)
    for min_area, max_hole in ((0, 0), (30, 0), (0, 60), (30, 60)):
        labels = labels_of(ensemble, path, path, None, none(min_area=min_area, max_hole=max_hole))
        assert np.array_equal(labels, submitted(min_area, max_hole))


def test_submit_and_own_images_clean_instances(draw: Callable[..., Any]) -> None:
    world = draw(2, seed=11)
    assert world.run("evaluate", "runs=[run]", "evaluate.tune=false") == 0
    ensemble_file = world.oof / "ensembles" / "one.json"
    # Nothing of the decoder's own, so that all that is done is done by submit.*.
    values = read_json(ensemble_file)
    values["instances"] = {"name": "threshold", "threshold": 0.3, "max_hole": 0, "min_size": 0}
    write_json(ensemble_file, {**values, "strata": {}})
    bands = world.submission / "predictions" / "dark02.tif"
    spoil(bands)
    written = world.submission / "labels" / "dark02.tif"

    def submitted(*more: str) -> NDArray[Any]:
        assert world.run("submit", *more) == 0
        return images.integers(written)

    before = submitted()
    with BandFile(bands) as file:
        assert np.array_equal(before, instances.resolve(values["instances"], ["foreground", "border"])(file.read()))
    whole = written.read_bytes()
    submitted("submit.min_area=0", "submit.max_hole=0")
    assert written.read_bytes() == whole
    areas = np.bincount(before.ravel())[1:]
    assert areas.min() < 12 < areas.max(), "the test is about something"
    after = submitted("submit.min_area=12", "submit.max_hole=4")
    assert np.array_equal(after, cleaned(before.astype(np.int32), 12, 4))
    assert after.max() == (areas >= 12).sum() < before.max()
    assert (after > 0)[before > 0].sum() + areas[areas < 12].sum() == (before > 0).sum()
    assert ((after > 0) & (before == 0)).any(), "a hole was filled"
    assert read_json(world.submission / "provenance.json")["submit"]["min_area"] == 12
    ensemble = Ensemble.read(ensemble_file)
    image = world.root / "input" / "custom" / "images" / "dark02.png"
    assert np.array_equal(labels_of(ensemble, bands, image, None, none(min_area=12, max_hole=4)), after)
    assert np.array_equal(labels_of(ensemble, bands, image, None, none()), before)
    place = Place("custom", None, world.root / "input" / "custom", world.root / "input")
    competition = Folders(place)
    task = EncodeTask(competition, competition.sample("dark02"), bands, None, None, values["instances"], 12, 4)
    texts = encode(task).texts
    assert np.array_equal(rle.decode_labels(texts, after.shape), after), "the rows of a CSV"


def spoil(path: Path) -> None:
    """Draw a speck and a hole into the foreground of a band file."""
    with BandFile(path) as file:
        codes, bands = file.rows(0, file.height), file.bands
    cv2.rectangle(codes[0], (42, 2), (44, 4), 255, -1)
    codes[0, 30:42, 4:16] = 255
    codes[0, 35:37, 9:11] = 0
    with BandFileWriter(path, bands, *codes.shape[1:], 1.0, *codes.shape[1:]) as writer:
        writer.write_rows(0, codes)
