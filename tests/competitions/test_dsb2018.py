"""DSB 2018 in Kaggle's layout: merging, CSV instead of folders, solutions, and what is missing or broken."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from histofold import competitions
from histofold.competitions import images
from histofold.competitions.base import Competition, Sample
from histofold.config import CompetitionConfig
from histofold.errors import DataError
from histofold.offline.run import Worker
from histofold.tiles.prepare import prepare
from histofold.tiles.store import Recipe


def opened(root: Path, **options: Any) -> Competition:
    return competitions.open(CompetitionConfig("dsb2018", "dsb2018", root.name, options), root.parent)


def test_samples(dsb: Path) -> None:
    found = opened(dsb).samples()
    assert [(s.sample_id, s.split, s.height, s.width, s.stratum) for s in found] == [
        ("aaa", "train", 20, 30, "fluorescence"),
        ("bbb", "train", 17, 23, "fluorescence"),
        ("ccc", "test", 11, 13, "brightfield"),
    ]
    assert opened(dsb, groups="none").samples()[1].group == "bbb"


def test_alpha_is_dropped(dsb: Path) -> None:
    image = opened(dsb).image("aaa")
    assert image.shape == (20, 30, 3)
    assert image.dtype == np.uint8
    assert image.max() < 40


@pytest.mark.parametrize("labels", ["auto", "csv", "masks"])
def test_overlap_goes_to_the_smaller_nucleus(dsb: Path, labels: str) -> None:
    truth = opened(dsb, labels=labels).labels("aaa")
    assert truth is not None
    assert np.bincount(truth.ravel()).tolist() == [600 - 64 - 16 + 4, 64 - 4, 16]
    assert truth[8, 9] == 2  # m2 lies over the corner of m1
    assert truth[2, 3] == 1


def test_the_csv_stands_in_for_a_missing_masks_folder(dsb: Path) -> None:
    before = opened(dsb).labels("aaa")
    shutil.rmtree(dsb / "stage1_train" / "aaa" / "masks")
    after = opened(dsb).labels("aaa")
    assert before is not None
    assert np.array_equal(before, after)


def test_an_image_without_nuclei(dsb: Path) -> None:
    truth = opened(dsb).labels("bbb")
    assert truth is not None
    assert truth.shape == (17, 23)
    assert truth.max() == 0


def test_solution_and_its_absence(dsb: Path) -> None:
    competition = opened(dsb)
    truth = competition.labels("ccc")
    assert truth is not None
    assert truth.sum() == 9
    assert competition.submission_ids() == ["ccc"]
    (dsb / "stage1_solution.csv").unlink()
    assert opened(dsb).labels("ccc") is None


def test_images_that_kaggle_ignored_have_no_truth(dsb: Path) -> None:
    path = dsb / "stage1_solution.csv"
    path.write_text(path.read_text().replace("Public", "Ignored"))
    assert opened(dsb).labels("ccc") is None


def test_stage_two(dsb: Path) -> None:
    (dsb / "stage1_test").rename(dsb / "stage2_test_final")
    (dsb / "stage1_solution.csv").rename(dsb / "stage2_solution_final.csv")
    competition = opened(dsb, test="stage2")
    assert competition.submission_ids() == ["ccc"]
    assert competition.samples()[-1].split == "test"
    truth = competition.labels("ccc")
    assert truth is not None
    assert truth.max() == 1


def test_a_solution_of_another_size(dsb: Path) -> None:
    path = dsb / "stage1_solution.csv"
    path.write_text(path.read_text().replace(",11,13,", ",11,14,"))
    with pytest.raises(DataError, match=r"stage1_solution.csv: ccc is 11 × 14 there, its image 11 × 13"):
        opened(dsb).labels("ccc")


def test_files_are_all_that_a_sample_depends_on(dsb: Path) -> None:
    assert [path.name for path in opened(dsb).files("aaa")] == ["aaa.png", "m1.png", "m2.png"]


def test_a_mask_of_another_size_than_its_image(dsb: Path, png: Any) -> None:
    png(dsb / "stage1_train" / "aaa" / "masks" / "m3.png", np.ones((20, 31), np.uint8))
    with pytest.raises(DataError, match=r"m3\.png: this mask is 20 × 31 .*its image 20 × 30"):
        opened(dsb).labels("aaa")


@pytest.mark.parametrize("part", ["images/aaa.png", "masks/m1.png"])
def test_a_truncated_png(dsb: Path, part: str) -> None:
    path = dsb / "stage1_train" / "aaa" / part
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    competition = opened(dsb)
    with pytest.raises(DataError, match=rf"{path.name}: not a whole image"):
        competition.image("aaa") if "images" in part else competition.labels("aaa")


@pytest.mark.parametrize(
    ("text", "what"),
    [("1 3 7", "aaa.*nucleus 1"), ("1 0", "nucleus 1"), ("1 3 2 4", "nucleus 1"), ("599 9", "nucleus 1")],
)
def test_broken_runs_in_the_csv(dsb: Path, table: Any, text: str, what: str) -> None:
    table(dsb / "stage1_train_labels.csv", [["ImageId", "EncodedPixels"], ["aaa", text], ["bbb", ""]])
    with pytest.raises(DataError, match=what):
        opened(dsb, labels="csv").labels("aaa")


def test_half_a_download(dsb: Path, table: Any) -> None:
    table(dsb / "stage1_sample_submission.csv", [["ImageId", "EncodedPixels"], ["ccc", "1 1"], ["ddd", "1 1"]])
    with pytest.raises(DataError, match=r"stage1_test/ lacks 1 of 2 images \(ddd"):
        opened(dsb).check()
    (dsb / "stage1_train" / "aaa" / "images" / "aaa.png").unlink()
    with pytest.raises(DataError, match=r"stage1_train/aaa/images/aaa\.png is missing"):
        opened(dsb).check()
    shutil.rmtree(dsb / "stage1_train" / "aaa")
    with pytest.raises(DataError, match=r"lacks 1 images of stage1_train_labels\.csv \(aaa"):
        opened(dsb).check()
    shutil.rmtree(dsb / "stage1_train")
    with pytest.raises(DataError, match=r"stage1_train/ is missing.*download competition=dsb2018"):
        opened(dsb).check()


def test_an_image_without_any_truth(dsb: Path) -> None:
    shutil.rmtree(dsb / "stage1_train" / "aaa" / "masks")
    (dsb / "stage1_train_labels.csv").unlink()
    with pytest.raises(DataError, match="aaa has no masks"):
        opened(dsb).check()


def test_a_csv_without_its_column(dsb: Path, table: Any) -> None:
    table(dsb / "stage1_train_labels.csv", [["ImageId", "Pixels"], ["aaa", "1 1"], ["bbb", ""]])
    with pytest.raises(DataError, match=r"no column 'EncodedPixels'; expected.*found ImageId, Pixels"):
        opened(dsb).check()


def test_an_unknown_id(dsb: Path) -> None:
    with pytest.raises(DataError, match="no image 'zzz'"):
        opened(dsb).source("zzz")
    with pytest.raises(DataError, match="no sample 'zzz'; dsb2018 has 3"):
        opened(dsb).sample("zzz")


def prepared(root: Path, folder: Path, **options: Any) -> str:
    return str(prepare(opened(root, **options), Recipe(), folder, workers=1))


@pytest.mark.parametrize("labels", ["csv", "auto"])
def test_rows_that_change_are_noticed(dsb: Path, table: Any, tmp_path: Path, labels: str) -> None:
    if labels == "auto":
        shutil.rmtree(dsb / "stage1_train" / "aaa" / "masks")
    prepared(dsb, tmp_path / "store", labels=labels)
    assert "nothing to do" in prepared(dsb, tmp_path / "store", labels=labels)
    table(dsb / "stage1_train_labels.csv", [["ImageId", "EncodedPixels"], ["aaa", "1 3"], ["bbb", ""]])
    assert "1 made, 2 kept" in (text := prepared(dsb, tmp_path / "store", labels=labels))
    assert "inputs have changed: aaa" in text
    assert np.load(tmp_path / "store" / "masks" / "aaa.npy").sum() == 3
    assert "nothing to do" in prepared(dsb, tmp_path / "store", labels=labels)


def test_a_solution_that_changes_is_noticed(dsb: Path, tmp_path: Path) -> None:
    prepared(dsb, tmp_path / "store")
    path = dsb / "stage1_solution.csv"
    path.write_text(path.read_text().replace("Public", "Ignored"))
    assert "inputs have changed: ccc" in prepared(dsb, tmp_path / "store")


def test_rows_do_not_count_where_masks_are_taken(dsb: Path, table: Any) -> None:
    before = [opened(dsb, labels=labels).truth_digest("aaa") for labels in ("auto", "csv")]
    table(dsb / "stage1_train_labels.csv", [["ImageId", "EncodedPixels"], ["aaa", "1 3"], ["bbb", ""]])
    after = [opened(dsb, labels=labels).truth_digest("aaa") for labels in ("auto", "csv")]
    assert before[0] == after[0] == ""
    assert before[1] != after[1]


@pytest.mark.parametrize("groups", ["fields", "none"])
@pytest.mark.parametrize(("key", "split"), [("aaa", "train"), ("ccc", "test")])
def test_a_broken_image_stops_no_other(dsb: Path, groups: str, key: str, split: str) -> None:
    path = opened(dsb).source(key)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    competition = opened(dsb, groups=groups)
    found = {sample.sample_id: sample for sample in competition.samples()}
    assert found[key] == Sample(key, split, 0, 0, key, "unreadable")
    assert all(sample.height for other, sample in found.items() if other != key)
    with pytest.raises(DataError, match=rf"{path.name}: not a whole image"):
        competition.stratum(key)
    assert competition.stratum("bbb") == found["bbb"].stratum == "fluorescence"


def test_the_stratum_of_one_image_reads_no_other(dsb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    competition = opened(dsb)
    read = []
    rgb = images.rgb
    monkeypatch.setattr(images, "rgb", lambda path: read.append(path.stem) or rgb(path))
    assert competition.stratum("ccc") == "brightfield"
    assert read == ["ccc"]


def test_what_macos_leaves_is_no_image(dsb: Path) -> None:
    shutil.copytree(dsb / "stage1_test" / "ccc", dsb / "stage1_test" / "__MACOSX" / "ccc")
    (dsb / "stage1_train" / "__MACOSX").mkdir()
    assert [sample.sample_id for sample in opened(dsb).samples()] == ["aaa", "bbb", "ccc"]


def test_the_notebook_tells_a_stratum_though_another_image_is_broken(
    dsb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = opened(dsb).source("aaa")
    path.write_bytes(b"no PNG")
    competition = opened(dsb)
    monkeypatch.setattr(type(competition), "samples", lambda self: pytest.fail("all images were listed"))
    worker: Any = SimpleNamespace(ensemble=SimpleNamespace(strata={"brightfield": {}}), competition=competition)
    assert Worker._stratum(worker, "ccc") == "brightfield"
    assert Worker._stratum(worker, "aaa") == ""
