"""The embedded samples: in Kaggle's layouts, the same every time, and too hard for a threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from histofold import files, sample, slides
from histofold.competitions import fields, images
from histofold.competitions.base import Competition
from histofold.competitions.hubmap import HubmapKidney
from histofold.errors import ConfigError
from histofold.sample import baseline
from histofold.sample.kidney import PLANS, slide
from histofold.sample.nuclei import pictures


def test_kidney_is_a_whole_competition(kidney: Competition) -> None:
    kidney.check()
    assert not kidney.provide()
    found = kidney.samples()
    assert {(s.sample_id, s.height, s.width, s.split) for s in found} == {
        (plan.slide, plan.height, plan.width, plan.split) for plan in PLANS
    }
    train = [s for s in found if s.split == "train"]
    assert 4 <= len({s.group for s in train}) < len(train)
    assert {s.group for s in train}.isdisjoint(s.group for s in found if s.split == "test")
    assert kidney.submission_ids() == ["a96f10d3e", "c4705eb8d"]


def test_kidney_has_every_tiff_layout(kidney: Competition) -> None:
    seen = set()
    for one in kidney.samples():
        with rasterio.open(kidney.source(one.sample_id)) as page:
            seen.add((page.count, str(page.interleaving), len(page.subdatasets)))
    assert {(count, pages) for count, _, pages in seen} >= {(3, 0), (1, 3)}
    assert len({interleaving for count, interleaving, _ in seen if count == 3}) == 2


def test_kidney_masks(kidney: Competition) -> None:
    assert isinstance(kidney, HubmapKidney)
    shares = {}
    for one in kidney.samples():
        runs = kidney.mask(one.sample_id)
        assert runs is not None
        shares[one.sample_id] = runs.area / (one.height * one.width)
        if one.split == "train":
            assert kidney.agreement(one.sample_id) == 1.0
            assert kidney.anatomy(one.sample_id) is not None
        else:
            assert not kidney.source(one.sample_id).with_suffix(".json").exists()
    assert [key for key, share in shares.items() if share == 0] == ["3f06c9a84"]
    assert all(0.03 < share < 0.15 for share in shares.values() if share)


def test_kidney_pixels_are_those_that_were_drawn(kidney: Competition) -> None:
    plan = PLANS[2]
    pixels, outlines = slide(plan)
    with slides.open(kidney.source(plan.slide)) as opened:
        assert np.array_equal(opened.window(0, 0, plan.height, plan.width), pixels)
    assert len(outlines) == plan.glomeruli


def test_kidney_stains_differ_between_patients(kidney: Competition) -> None:
    colours = []
    for key in ("0a1d4e6b2", "2be850d17", "7e813ab6c"):
        thumbnail, _ = slides.thumbnail(kidney.source(key), longest=256)
        tissue = thumbnail[thumbnail.min(axis=2) < 200]
        colours.append(tissue.mean(axis=0))
    distances = [np.abs(a - b).max() for a in colours for b in colours if a is not b]
    assert min(distances) > 8


def test_a_threshold_fails_on_kidney(kidney: Competition) -> None:
    scores = baseline.otsu(kidney)
    assert len(scores) == 6
    assert np.mean(list(scores.values())) < 0.35
    assert set(baseline.otsu(kidney, "test")) == {"a96f10d3e", "c4705eb8d"}


def test_nuclei_are_a_whole_competition(nuclei: Competition) -> None:
    nuclei.check()
    found = {s.sample_id: s for s in nuclei.samples()}
    drawn = {image.image_id: image for image in pictures()}
    assert set(found) == set(drawn)
    assert {s.stratum for s in found.values()} == {fields.FLUORESCENCE, fields.HISTOLOGY, fields.BRIGHT_GREY}
    assert len({(s.height, s.width) for s in found.values()}) >= 7
    for key in list(drawn)[::5]:
        assert np.array_equal(nuclei.image(key), drawn[key].pixels)
        labels = nuclei.labels(key)
        assert labels is not None
        assert np.array_equal(labels > 0, drawn[key].labels > 0)
        assert len(np.unique(labels)) == len(np.unique(drawn[key].labels))


def test_nuclei_touch_and_one_image_is_empty(nuclei: Competition) -> None:
    empty, touching = [], 0
    for one in nuclei.samples():
        labels = nuclei.labels(one.sample_id)
        assert labels is not None
        if labels.max() == 0:
            empty.append(one.split)
        beside = (labels[:, 1:] != labels[:, :-1]) & (labels[:, 1:] > 0) & (labels[:, :-1] > 0)
        touching += bool(beside.any())
    assert empty == ["train"]
    assert touching > 25


def test_tiles_of_one_drawn_field_are_found_again(nuclei: Competition) -> None:
    sizes: dict[str, int] = {}
    for one in nuclei.samples():
        sizes[one.group] = sizes.get(one.group, 0) + 1
    assert sorted(sizes.values(), reverse=True)[:4] == [4, 4, 4, 1]


def test_nuclei_files_are_rgba_and_masks_one_each(nuclei: Competition) -> None:
    import PIL.Image

    folder = next(path for path in sorted((nuclei.root / "stage1_train").iterdir()) if list(path.glob("masks/*")))
    with PIL.Image.open(folder / "images" / f"{folder.name}.png") as image:
        assert image.mode == "RGBA"
    for path in folder.glob("masks/*.png"):
        assert np.unique(images.integers(path)).tolist() == [0, 255]


def test_a_threshold_fails_on_nuclei(nuclei: Competition) -> None:
    scores = baseline.otsu(nuclei)
    kinds = {s.sample_id: s.stratum for s in nuclei.samples()}
    assert np.mean(list(scores.values())) < 0.35
    for kind, worst in ((fields.FLUORESCENCE, 0.4), (fields.HISTOLOGY, 0.4), (fields.BRIGHT_GREY, 0.05)):
        assert np.mean([score for key, score in scores.items() if kinds[key] == kind]) < worst


def test_threshold_takes_the_side_that_the_rim_is_not_on() -> None:
    dark = np.full((20, 20, 3), 20, np.uint8)
    dark[8:12, 8:12] = 200
    assert baseline.threshold(dark).sum() == 16
    assert baseline.threshold(255 - dark).sum() == 16


def test_drawn_twice_is_the_same(nuclei: Competition, empty: Path) -> None:
    sample.draw_nuclei(empty)
    first = {p.relative_to(nuclei.root): files.sha256(p) for p in nuclei.root.rglob("*") if p.is_file()}
    second = {p.relative_to(empty): files.sha256(p) for p in empty.rglob("*") if p.is_file()}
    assert first == second


def test_unknown_sample(empty: Path) -> None:
    with pytest.raises(ConfigError, match="sample=liver: unknown; there are kidney, nuclei"):
        sample.draw("liver", empty)
