"""The adapters on real competition files; skipped where HISTOFOLD_DATA does not name the folder of data sets."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from histofold import competitions
from histofold.competitions import fields, polygons
from histofold.competitions.base import Competition
from histofold.competitions.instances import contacts
from histofold.competitions.rows import RowIndex
from histofold.compose import compose, load
from histofold.config import CompetitionConfig
from histofold.rle import RunMask
from histofold.tiles.augment import AugmentOptions
from histofold.training.preprocessing import preprocess_of


def opened(data: Path, folder: str, adapter: str = "folders", **options: Any) -> Competition:
    return competitions.open(CompetitionConfig("real", adapter, None, {"folder": folder, **options}), data)


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as stream:
        return {row["id"]: row for row in csv.DictReader(stream)}


def coarse(kind: str) -> str:
    return "brightfield" if kind == "brightfield_gray" else kind.split("_")[0]


@pytest.fixture(scope="module")
def views(data: Path) -> dict[str, tuple[fields.View, dict[str, str]]]:
    root = data / "dsb2018"
    index = rows_of(root / "index.csv")
    found = fields.look({key: root / "images" / f"{key}.png" for key in index}, workers=1)
    return {key: (found[key], index[key]) for key in index}


def test_image_types_of_dsb(views: dict[str, tuple[fields.View, dict[str, str]]]) -> None:
    right = [view.kind == coarse(row["type"]) for view, row in views.values()]
    assert len(right) == 465
    assert np.mean(right) >= 0.98


def test_groups_of_dsb(views: dict[str, tuple[fields.View, dict[str, str]]]) -> None:
    from sklearn.metrics import adjusted_rand_score

    found = [view.group for view, _ in views.values()]
    expected = [row["group"] for _, row in views.values()]
    assert adjusted_rand_score(expected, found) >= 0.95


def test_kaggle_layout_of_dsb(data: Path) -> None:
    competition = opened(data, "dsb2018/kaggle_layout", "dsb2018")
    index = rows_of(data / "dsb2018" / "kaggle_layout" / "index.csv")
    from_csv = opened(data, "dsb2018/kaggle_layout", "dsb2018", labels="csv")
    found = competition.samples()
    assert sum(sample.split == "train" for sample in found) == 24
    assert len(competition.submission_ids()) == 4
    for sample in found:
        labels = competition.labels(sample.sample_id)
        assert labels is not None
        assert labels.shape == (sample.height, sample.width) == competition.image(sample.sample_id).shape[:2]
        if sample.split == "train":
            assert labels.max() == int(index[sample.sample_id]["n_masks_original"])
            if sample.height < 600:  # a thousand large mask files would take seconds
                assert np.array_equal(labels, from_csv.labels(sample.sample_id))


def test_flat_dsb_with_stage1_test(data: Path) -> None:
    competition = opened(data, "dsb2018", test="dsb2018_stage1_test", csv="dsb2018")
    found = competition.samples()
    assert [sum(sample.split == split for sample in found) for split in ("train", "test")] == [465, 41]
    index = rows_of(data / "dsb2018_stage1_test" / "index.csv")
    for key in competition.submission_ids():
        labels = competition.labels(key)
        assert labels is not None
        assert labels.max() == int(index[key]["n_nuclei"])


def test_nuclei_590_split_through_the_folders(data: Path, tmp_path: Path) -> None:
    for name in ("images", "labels", "index.csv", "nuclei_590.csv"):
        (tmp_path / name).symlink_to(data / "dsb2018" / name)
    found = opened(tmp_path.parent, tmp_path.name, layout="nuclei_590").samples()
    assert sum(sample.split == "test" for sample in found) == 53


SETS = [
    ("glas", {"group": "patient"}, 16, 7),
    ("glomeruli_biopsy", {"truth": "mask", "stratum": "stain"}, 74, 36),
    ("kidney_primitives_ki", {"truth": "mask", "stratum": "structure"}, 68, 50),
    ("monuseg2018_test", {"merged": True}, 10, 10),
    ("monuseg2018_test", {"merged": True, "layout": "monuseg"}, 10, 10),
    ("tnbc_samples", {"merged": True, "group": "base"}, 6, 6),
    ("lizard_consep_samples", {"merged": True}, 4, 4),
    ("pannuke_samples", {"merged": True}, 7, 7),
    ("hubmap_hpa_2022_figures", {"truth": "mask"}, 7, 7),
    ("hubmap_kidney/figure_pairs", {"truth": "mask"}, 4, 4),
]


@pytest.mark.parametrize(("folder", "options", "count", "groups"), SETS)
def test_other_sets(data: Path, folder: str, options: dict[str, Any], count: int, groups: int) -> None:
    competition = opened(data, folder, **options)
    found = competition.samples()
    assert len(found) == count
    assert len({sample.group for sample in found}) == groups
    for sample in found[:5]:
        labels = competition.labels(sample.sample_id)
        assert labels is not None
        assert labels.max() > 0
        assert labels.shape == (sample.height, sample.width)


NOTED = [("monuseg2018_test", True), ("dsb2018_stage1_test", False), ("glas", False)]


@pytest.mark.parametrize(("folder", "noted"), NOTED)
def test_labels_that_are_components_of_masks_are_noted(data: Path, folder: str, noted: bool) -> None:
    competition = opened(data, folder)
    labels = {sample.sample_id: competition.labels(sample.sample_id) for sample in competition.samples()}
    counts = {key: contacts(found) for key, found in labels.items() if found is not None}
    assert bool(competition.doubts(counts)) == noted


def test_glomeruli_of_fields_and_patches_are_of_one_size(data: Path) -> None:
    """Whole ones: a network sees them at one scale, so the patches' lower magnification must have been made up for."""
    competition = opened(data, ".", layout="glomeruli")
    widths: dict[bool, list[float]] = {True: [], False: []}
    for sample in competition.samples():
        labels = competition.labels(sample.sample_id)
        assert labels is not None
        rim = {int(value) for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]) for value in np.unique(edge)}
        areas = np.bincount(labels.ravel())
        whole = [area for value, area in enumerate(areas) if value and area and value not in rim]
        widths[str(sample.stratum).startswith("patch_")] += [float(np.sqrt(area * 4 / np.pi)) for area in whole]
    fields, patches = np.median(widths[False]), np.median(widths[True])
    assert 0.6 <= patches / fields <= 1.0, (fields, patches)


def test_the_recipe_for_glomeruli_finds_its_reference(data: Path) -> None:
    config = load(compose(["experiment=glomeruli"]))
    competition = competitions.open(config.competition, data)
    preprocess = preprocess_of(AugmentOptions(**config.augment), competition, config.prepare.scale)
    assert preprocess.stain_method == "reinhard"
    silver, pas = (competition.image(name)[::8, ::8] for name in ("20181345-PASM", "20181462-PAS-0200-0004"))
    apart = np.abs(silver.mean((0, 1)) - pas.mean((0, 1))).max()
    together = np.abs(preprocess.pixels(silver).mean((0, 1)) - preprocess.pixels(pas).mean((0, 1))).max()
    assert together < apart / 3, (together, apart)


def test_real_polygons_give_the_published_runs(data: Path) -> None:
    """Outlines by a competitor, and the same outlines as runs at full slide size: two ways to one mask."""
    root = data / "hubmap_kidney" / "polygons_optimox"
    index = RowIndex.of(root / "rle_from_polygons.csv", ["id", "encoding"])
    compared = 0
    for path in sorted(root.rglob("*.json")):
        for row in index.rows(path.stem):
            shape = int(row["height"]), int(row["width"])
            if row["which"] != "all":
                continue
            drawn = RunMask(polygons.runs(polygons.read(path), *shape), shape, "columns")
            published = RunMask(row["encoding"], shape, "columns")
            dice = 2 * drawn.intersection(published) / (drawn.area + published.area)
            assert dice > 0.98, path.name
            compared += 1
    assert compared == 10


OUTLINES = [
    ("polygons_optimox/kaggle_slides", 10, 184),
    ("polygons_optimox/external_slides", 33, 636),
    ("polygons_pambuh", 3, 67),
]
"""Folder, its files, and the outlines in them."""


@pytest.mark.parametrize(("folder", "count", "total"), OUTLINES)
def test_every_file_of_outlines_is_read_drawn_and_encoded(data: Path, folder: str, count: int, total: int) -> None:
    root = data / "hubmap_kidney"
    rows = rows_of(root / "kaggle_files" / "slide_shapes.csv")
    sizes = {key: (int(row["height"]), int(row["width"])) for key, row in rows.items()}
    paths = sorted((root / folder).glob("*.json"))
    assert len(paths) == count
    found = 0
    for path in paths:
        outlines = polygons.read(path)
        found += len(outlines)
        # Slides that are none of the competition's: as large as their outlines reach.
        far = np.concatenate([rings[0] for rings in outlines]).max(0) + 1
        shape = sizes.get(path.stem.split("_")[0], (int(far[1]), int(far[0])))
        text = polygons.runs(outlines, *shape)
        drawn = RunMask(text, shape, "columns")
        assert drawn.text() == text, path.name
        assert 0 < len(drawn.boxes()) <= len(outlines), path.name
        for rings in outlines:
            (left, top), (right, bottom) = rings[0].min(0), rings[0].max(0) + 1
            own = np.zeros((bottom - top, right - left), np.uint8)
            cv2.fillPoly(own, [ring - np.array([left, top], np.int32) for ring in rings], 1)
            painted = drawn.window(int(top), int(left), int(bottom - top), int(right - left))
            assert np.array_equal(painted | own, painted), path.name  # others may reach into its box
            assert painted.any(), path.name
    assert found == total


def test_two_real_rows_of_train_csv_are_read_by_offset(data: Path) -> None:
    path = data / "hubmap_kidney" / "kaggle_files" / "train_2slides.csv"
    index = RowIndex.of(path, ["id", "encoding"], unique=True)
    sizes = {"2f6ecfcdf": (31278, 25794), "8242609fa": (31299, 44066)}
    runs = {"2f6ecfcdf": 41_688, "8242609fa": 161_083}
    for key, shape in sizes.items():
        mask = RunMask(index.rows(key)[0]["encoding"], shape, "columns")
        assert len(mask.runs[0]) == runs[key]
