"""DSB 2018 in Kaggle's layout: merging, CSV instead of folders, solutions, and what is missing or broken."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histofold import competitions
from histofold.competitions.base import Competition
from histofold.config import CompetitionConfig
from histofold.errors import DataError


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
