"""HuBMAP kidney: sizes from headers, runs and polygons, patients, and what is missing or broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histofold import competitions
from histofold.competitions.hubmap import INFORMATION, HubmapKidney
from histofold.config import CompetitionConfig
from histofold.errors import DataError
from histofold.sample.kidney import write_tiff


def opened(root: Path, **options: Any) -> HubmapKidney:
    config = CompetitionConfig("hubmap_kidney", "hubmap_kidney", root.name, options)
    competition = competitions.open(config, root.parent)
    assert isinstance(competition, HubmapKidney)
    return competition


def test_sizes_come_from_the_headers_and_groups_are_patients(hubmap: Path) -> None:
    found = opened(hubmap).samples()
    assert [(s.sample_id, s.split, s.height, s.width, s.group) for s in found] == [
        ("one", "train", 64, 48, "101"),
        ("three", "test", 32, 32, "three"),
        ("two", "train", 40, 80, "102"),
    ]


@pytest.mark.parametrize("masks", ["rle", "polygons"])
def test_masks_of_both_sources(hubmap: Path, masks: str) -> None:
    competition = opened(hubmap, masks=masks)
    runs = competition.mask("one")
    assert runs is not None
    expected = np.zeros((64, 48), np.uint8)
    expected[10:19, 20:29] = 1
    assert np.array_equal(runs.window(0, 0, 64, 48), expected)
    assert competition.mask("three") is None


def test_agreement_and_files(hubmap: Path) -> None:
    competition = opened(hubmap, masks="polygons")
    assert competition.agreement("one") == 1.0
    assert [path.name for path in competition.files("one")] == ["one.tiff", "one.json"]
    assert competition.anatomy("one") == hubmap / "train" / "one-anatomical-structure.json"
    assert competition.anatomy("two") is None
    with pytest.raises(DataError, match="no row for 'three'"):
        competition.agreement("three")


@pytest.mark.parametrize("masks", ["rle", "polygons"])
def test_polygons_that_differ_from_the_runs_are_told(hubmap: Path, masks: str) -> None:
    competition = opened(hubmap, masks=masks)
    assert [competition.remark(key) for key in ("one", "two", "three")] == [""] * 3, "alike, or nothing to compare"
    path = hubmap / "train" / "one.json"
    path.write_text(path.read_text().replace("28", "29"))
    # A square of 9 × 9 pixels is one of 9 × 10 now.
    assert opened(hubmap, masks=masks).agreement("one") == pytest.approx(162 / 171)
    text = opened(hubmap, masks=masks).remark("one")
    for word in ("one: ", "one.json", "Dice of 0.9474", "at least 0.99", f"masks={masks}"):
        assert word in text
    path.write_text("[{}]")
    text = opened(hubmap, masks=masks).remark("one")
    assert "one: its polygons were not compared" in text
    assert "feature 0 is no outline" in text


def test_polygons_of_another_slide_are_refused(hubmap: Path) -> None:
    path = hubmap / "train" / "one.json"
    path.write_text(path.read_text().replace("28", "44"))
    with pytest.raises(DataError, match=r"one\.json: .*Dice of 0\.\d+, expected at least 0\.9"):
        opened(hubmap, masks="polygons").mask("one")


def test_missing_polygons_are_no_empty_mask(hubmap: Path) -> None:
    with pytest.raises(DataError, match=r"train/two\.json is missing"):
        opened(hubmap, masks="polygons").mask("two")


@pytest.mark.parametrize(
    "content", ['[{"geometry": {"type": "Polygon", "coordinates": [[1, 2]]}}]', "[{}]", "[3]", '[{"geometry": null}]']
)
def test_json_without_polygons(hubmap: Path, content: str) -> None:
    (hubmap / "train" / "one.json").write_text(content)
    with pytest.raises(DataError, match="feature 0 is no outline"):
        opened(hubmap, masks="polygons").mask("one")


def test_hidden_truth_of_test_slides(hubmap: Path, table: Any) -> None:
    table(hubmap / "hidden_truth.csv", [["id", "encoding"], ["three", "1 5"]])
    runs = opened(hubmap).mask("three")
    assert runs is not None
    assert runs.area == 5


@pytest.mark.parametrize("text", ["1 2 3", "1 0", "5 4 2 1", "3070 10", "x 1"])
def test_broken_runs_name_file_and_slide(hubmap: Path, table: Any, text: str) -> None:
    table(hubmap / "train.csv", [["id", "encoding"], ["one", text], ["two", ""]])
    with pytest.raises(DataError, match=r"train\.csv: one: "):
        opened(hubmap).mask("one")


def test_half_a_download(hubmap: Path) -> None:
    (hubmap / "train" / "two.tiff").unlink()
    with pytest.raises(DataError, match=r"train/ lacks 1 of 2 slides \(two\).*half a download.*download competition="):
        opened(hubmap).samples()


@pytest.mark.parametrize("name", ["one.tiff.ovr", "one.tiff.aux.xml", "._one.tiff", "one.tif.txt"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_what_programs_leave_beside_a_slide_is_no_slide(hubmap: Path, split: str, name: str) -> None:
    before = [sample.sample_id for sample in opened(hubmap).samples()]
    (hubmap / "sample_submission.csv").unlink(missing_ok=True)
    ids = opened(hubmap).submission_ids()
    (hubmap / split / name).write_bytes(b"not a slide")
    assert [sample.sample_id for sample in opened(hubmap).samples()] == before
    assert opened(hubmap).submission_ids() == ids


def test_missing_test_slides(hubmap: Path) -> None:
    (hubmap / "test" / "three.tiff").unlink()
    with pytest.raises(DataError, match=r"test/ lacks 1 of 1 slides \(three\)"):
        opened(hubmap).check()


def test_missing_train_csv(hubmap: Path) -> None:
    (hubmap / "train.csv").unlink()
    with pytest.raises(DataError, match=r"train\.csv is missing"):
        opened(hubmap).check()


def test_a_slide_without_row(hubmap: Path, table: Any) -> None:
    table(hubmap / "train.csv", [["id", "encoding"], ["one", ""]])
    with pytest.raises(DataError, match=r"train\.csv: no row for two"):
        opened(hubmap).check()


def test_duplicate_ids_and_missing_columns(hubmap: Path, table: Any) -> None:
    table(hubmap / "train.csv", [["id", "encoding"], ["one", ""], ["two", ""], ["one", "1 1"]])
    with pytest.raises(DataError, match=r"train\.csv: line 4: 'one' is there twice"):
        opened(hubmap).check()
    table(hubmap / "train.csv", [["id", "rle"], ["one", ""], ["two", ""]])
    with pytest.raises(DataError, match="no column 'encoding'"):
        opened(hubmap).check()


@pytest.mark.parametrize(("slide", "share"), [("one", 0.1), ("one", 0.6), ("two", 0.6), ("two", 0.95)])
def test_truncated_tiff(hubmap: Path, slide: str, share: float) -> None:
    path = hubmap / "train" / f"{slide}.tiff"
    rng = np.random.default_rng(0)
    write_tiff(path, rng.integers(0, 255, (64, 48, 3)).astype(np.uint8), "interleaved" if slide == "one" else "planar")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    competition = opened(hubmap)
    sizes = {sample.sample_id: (sample.height, sample.width) for sample in competition.samples()}
    assert sizes == {"one": (64, 48), "two": (40, 80), "three": (32, 32)} | {slide: (0, 0)}, "the others are listed"
    assert competition.sample(slide).group == ("101" if slide == "one" else "102")
    with pytest.raises(DataError, match=rf"{slide}\.tiff"):
        competition.mask(slide)


def test_unknown_patient(hubmap: Path, table: Any) -> None:
    table(hubmap / INFORMATION, [["image_file", "patient_number"], ["one.tiff", 101]])
    with pytest.raises(DataError, match=r"no patient_number for training slide two.*groups=slide"):
        opened(hubmap).samples()
    assert [s.group for s in opened(hubmap, groups="slide").samples()] == ["one", "three", "two"]
    (hubmap / INFORMATION).unlink()
    with pytest.raises(DataError, match=r"dataset_information\.csv is missing"):
        opened(hubmap).samples()


def test_submission_follows_the_sample_file(hubmap: Path) -> None:
    assert opened(hubmap).submission_ids() == ["three"]
    (hubmap / "sample_submission.csv").unlink()
    assert opened(hubmap).submission_ids() == ["three"]


def test_feature_collections_are_read_too(hubmap: Path) -> None:
    path = hubmap / "train" / "one.json"
    features = json.loads(path.read_text())
    ring = features[0]["geometry"]["coordinates"]
    features[0]["geometry"] = {"type": "MultiPolygon", "coordinates": [ring]}
    features.append({"geometry": {"type": "LineString", "coordinates": [[1, 2], [3, 4]]}})  # a stray stroke
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert opened(hubmap).agreement("one") == 1.0


def test_one_feature_is_a_list_of_one(hubmap: Path) -> None:
    path = hubmap / "train" / "one.json"
    path.write_text(json.dumps(json.loads(path.read_text())[0]))
    assert opened(hubmap).agreement("one") == 1.0


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"type": "Polygon", "coordinates": []}, "an object without features .its type is 'Polygon'"),
        ({"outlines": []}, "an object without features .its type is None"),
        ({"features": 3}, "features of type int"),
    ],
)
def test_json_without_features_is_no_empty_mask(hubmap: Path, content: Any, found: str) -> None:
    (hubmap / "train" / "one.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"one\.json: no list of outlines but {found}.*a FeatureCollection, a Feature"):
        opened(hubmap).agreement("one")


def test_rows_of_the_information_that_are_cut_short(hubmap: Path) -> None:
    path = hubmap / INFORMATION
    whole = path.read_text()
    path.write_text(whole.replace("two.tiff,80,40,102", "two.tiff,80"))
    with pytest.raises(DataError, match=r"no patient_number for training slide two.*groups=slide"):
        opened(hubmap).samples()
    path.write_text("patient_number,image_file\n101,one.tiff\n103\n102,two.tiff\n")
    assert [sample.group for sample in opened(hubmap).samples()] == ["101", "three", "102"]


@pytest.mark.parametrize("name", ["train.csv", "sample_submission.csv"])
def test_line_ends_of_old_macs(hubmap: Path, name: str) -> None:
    path = hubmap / name
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\r"))
    with pytest.raises(DataError, match=rf"{name}: line 1: .*found CR alone: save it with LF or CRLF line ends"):
        opened(hubmap).check()


@pytest.mark.parametrize(("split", "stem"), [("train", "one"), ("test", "three")])
@pytest.mark.parametrize("ending", [".tif", ".TIF"])
def test_two_slides_with_one_id(hubmap: Path, split: str, stem: str, ending: str) -> None:
    path = hubmap / split / f"{stem}.tiff"
    path.with_suffix(ending).write_bytes(path.read_bytes())
    names = " and ".join(sorted([path.name, stem + ending]))
    with pytest.raises(DataError, match=f"{split}: {names} have the same id; keep one of them"):
        opened(hubmap).check()
