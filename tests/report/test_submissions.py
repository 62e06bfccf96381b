"""Test pictures: each submission with its own settings, as it was submitted, and which of many are shown."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histofold.competitions.base import Competition, Place, Sample
from histofold.files import read_json, sha256, write_json
from histofold.inference.bandfile import BandFileWriter
from histofold.kaggle import log
from histofold.kaggle.csv import CsvFormat
from histofold.report import run, submitted
from histofold.report.data import collect
from histofold.report.page import Content
from histofold.report.run import build
from histofold.rle import RunMask
from histofold.submission.encode import EncodeTask, encode, write_labels
from histofold.targets.base import Band

Places = tuple[Path, Path]
SIDE = 64
HIGH = {"name": "threshold", "threshold": 0.95}
"""A decoder that finds nothing in the soft predictions of these tests."""


@pytest.fixture
def look(competition: Competition, full: Places, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Content]:
    """Builds the page and gives what it is made of."""

    def content(**more: Any) -> Content:
        seen: list[Content] = []
        rendered = run.render
        monkeypatch.setattr(run, "render", lambda found: seen.append(found) or rendered(found))
        build(more.pop("competition", competition), *full, workers=1, **more)
        monkeypatch.setattr(run, "render", rendered)
        return seen[-1]

    return content


def band_file(path: Path, areas: list[tuple[int, int, int]], level: int = 230) -> None:
    """A prediction of squares (top, left, side) on a dark ground."""
    codes = np.full((SIDE, SIDE), 12, np.uint8)
    for top, left, side in areas:
        codes[top : top + side, left : left + side] = level
    with BandFileWriter(path, (Band("foreground", 0.0, 1.0),), SIDE, SIDE) as writer:
        writer.write_rows(0, codes[None])


def submit(full: Places, name: str, provenance: dict[str, Any] | None = None) -> Path:
    """Another submission folder, of two squares (400 and 25 pixels) in each of two test images."""
    folder = full[1] / "invented" / name
    for sample in ("test_00", "test_03"):
        band_file(folder / "predictions" / f"{sample}.tif", [(5, 5, 20), (40, 40, 5)])
    if provenance is not None:
        write_json(folder / "provenance.json", provenance)
    return folder


def record(full: Places, **more: Any) -> dict[str, Any]:
    """The record of the ensemble `duo`, changed."""
    return {**read_json(full[0] / "invented" / "ensembles" / "duo.json"), **more}


def said(content: Content) -> str:
    return "\n".join(f"{what} {how}" for what, how in content.notes)


def test_each_submission_is_decoded_as_its_own_ensemble_decodes(full: Places, look: Callable[..., Content]) -> None:
    submit(full, "high", {"ensemble": record(full, name="high", instances=HIGH)})
    submit(full, "split", {"ensemble": record(full, name="split", strata={"dark": HIGH})})
    submit(full, "plain", {"ensemble": record(full, name="plain")})
    found = look(name="duo").tests
    assert {name: [one["objects"] for one in found[name].predicted] for name in ("high", "split", "plain")} == {
        "high": [0, 0],
        "split": [0, 0],
        "plain": [2, 2],
    }
    assert [one["objects"] for one in found["duo"].predicted] == [4, 4, 4, 4]


def test_without_provenance_the_ensemble_of_that_name_counts(full: Places, look: Callable[..., Content]) -> None:
    submit(full, "high")
    write_json(full[0] / "invented" / "ensembles" / "high.json", record(full, name="high", instances=HIGH))
    assert [one["objects"] for one in look(name="duo").tests["high"].predicted] == [0, 0]


def test_a_band_that_only_the_pages_ensemble_has_hides_no_other(full: Places, look: Callable[..., Content]) -> None:
    submit(full, "plain", {"ensemble": record(full, name="plain")})
    write_json(full[0] / "invented" / "ensembles" / "duo.json", record(full, bands=["foreground", "border"]))
    found = look(name="duo")
    assert found.tests["plain"].problems == []
    assert len(found.tests["plain"].items) == 2
    assert "Not readable in plain" not in said(found)


def test_a_submission_whose_ensemble_is_gone_is_named_and_not_drawn(full: Places, look: Callable[..., Content]) -> None:
    submit(full, "lost")
    found = look(name="duo")
    assert "lost" not in found.tests
    assert "Not drawn of lost: 2 of 2 test pictures" in said(found)
    assert str(full[0] / "invented" / "ensembles" / "lost.json") in said(found)


def test_written_labels_are_what_is_shown(full: Places, look: Callable[..., Content]) -> None:
    folder = submit(full, "lost")
    labels = np.zeros((SIDE, SIDE), np.int32)
    for number in range(300):  # more than a byte counts
        labels[number // 30 * 3, number % 30 * 2] = number + 1
    write_labels(folder / "labels" / "test_03.tif", labels)
    found = look(name="duo")
    assert [one["objects"] for one in found.tests["lost"].predicted] == [300]
    assert "Not drawn of lost: 1 of 2 test pictures" in said(found)
    write_labels(folder / "labels" / "test_00.tif", labels[1:])
    (folder / "labels" / "test_03.tif").write_bytes(b"no TIFF")
    found = look(name="duo")
    assert found.tests["lost"].predicted == []
    assert [text.split(":")[0] for text in found.tests["lost"].problems] == ["test_00", "test_03"]
    assert said(found).count("run submit again") == 2


@pytest.mark.parametrize("truth", ["instances", "mask"])
def test_small_objects_and_holes_are_as_in_the_file_that_was_sent(
    full: Places, look: Callable[..., Content], competition: Competition, truth: str
) -> None:
    competition.truth = truth
    settings: dict[str, Any] = {"instances": {"name": "threshold", "threshold": 0.5, "max_hole": 0}}
    if truth == "mask":
        settings = {"instances": None, "threshold": 0.5}
    values = record(full, name="clean", **settings)
    folder = submit(full, "clean", {"ensemble": values, "submit": {"min_area": 30, "max_hole": 4}})
    path = folder / "predictions" / "test_00.tif"
    path.unlink()
    with BandFileWriter(path, (Band("foreground", 0.0, 1.0),), SIDE, SIDE) as writer:
        codes = np.full((SIDE, SIDE), 12, np.uint8)
        codes[5:25, 5:25] = codes[40:45, 40:45] = 230
        codes[10:12, 10:12] = 12
        writer.write_rows(0, codes[None])
    task = EncodeTask(
        *(competition, competition.sample("test_00"), path, None),
        *(values["threshold"], values["instances"], 30, 4, False),
    )
    (text,) = encode(task).texts
    area = RunMask(text, (SIDE, SIDE)).area
    assert area == 400, "no speck, no hole"
    if truth == "mask":
        write_json(full[0] / "invented" / "ensembles" / "duo.json", record(full, **settings))
    found = look(name="duo").tests["clean"].predicted
    assert found[0]["share"] == pytest.approx(100 * area / SIDE**2)
    assert [one.get("objects", 1) for one in found] == [1, 1]


def test_another_second_level_is_not_passed_off_as_its_own(full: Places, look: Callable[..., Content]) -> None:
    place = full[0] / "invented" / "ensembles" / "second" / "deep.json"
    place.parent.mkdir()
    place.write_text("{}")
    submit(full, "deep", {"ensemble": record(full, name="deep", second={"sha256": "ab" * 32, "gain": 0.1})})
    found = look(name="duo")
    assert "deep" not in found.tests
    assert "not the second level that it was made with" in said(found)
    values = record(full, name="deep", second={"sha256": sha256(place), "gain": 0.1})
    write_json(full[1] / "invented" / "deep" / "provenance.json", {"ensemble": values})
    assert "expected a second level of format" in said(look(name="duo")), "now it is read, and is none"


def test_its_own_pictures_come_first_then_the_newest(full: Places, look: Callable[..., Content]) -> None:
    ages = {"a_unet": 1, "b": 5, "c": 4, "d": 3, "e": 2, "f": 6}
    for name, day in ages.items():
        values = {"ensemble": record(full, name=name), "submit": {"finished": f"2024-06-0{day}T10:00:00+00:00"}}
        submit(full, name, values)
    write_json(full[0] / "invented" / "ensembles" / "a_unet.json", record(full, name="a_unet"))
    assert list(look(name="a_unet").tests) == ["a_unet", "f", "b", "c"]


def test_age_without_a_record_is_that_of_the_predictions(full: Places, look: Callable[..., Content]) -> None:
    for number, name in enumerate(("p", "q", "r", "s")):
        submit(full, name)
        write_json(full[0] / "invented" / "ensembles" / f"{name}.json", record(full, name=name))
        os.utime(full[1] / "invented" / name / "predictions", (2e9 - number, 2e9 - number))
    (full[1] / "invented" / "empty").mkdir()
    assert list(look(name="duo").tests) == ["duo", "p", "q", "r"]


def test_own_images_and_a_notebook_are_no_submission(full: Places, competition: Competition) -> None:
    folder = full[1] / "invented" / "duo"
    shutil.rmtree(full[1])
    for name in ("images/mine/predictions", "kernel/dataset"):
        (folder / name).mkdir(parents=True)
    band_file(folder / "images" / "mine" / "predictions" / "a.tif", [(5, 5, 20)])
    text = build(competition, *full, workers=1).read_text(encoding="utf-8")
    assert 'id="submitted"' not in text
    assert "<dt>Submitted</dt><dd>nothing yet</dd>" in text
    assert "Nothing was submitted yet:" in text
    assert "./run.sh predict competition=folders competition.name=invented name=duo" in text

    # The notebook was sent after all.
    log.write(full[1] / "invented" / "log.csv", [log.Entry("2024-05-02", "duo", "me/it", "ab", "m", "0.7", "0.6")])
    text = build(competition, *full, workers=1).read_text(encoding="utf-8")
    section = text.split('<section id="submitted">')[1]
    assert "0.6000" in section
    assert '<article class="submission">' not in section
    assert "<dt>Submitted</dt><dd>duo</dd>" in text
    assert "Nothing was submitted yet" not in text


@pytest.mark.parametrize("left", ["predictions", "provenance.json", "submission.csv"])
def test_each_trace_of_the_test_set_makes_a_submission(full: Places, left: str) -> None:
    for path in (full[1] / "invented" / "duo").iterdir():
        if path.name != left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert [one.name for one in collect("invented", *full).submissions] == ["duo"]


class TwoSlides(Competition):
    """Two drawn test slides whose predictions are at half the size."""

    kind = "slides"

    def __init__(self, folder: Path) -> None:
        super().__init__(Place("slides", "slug", folder, folder))
        self.truth, self.metric = "mask", "dice"
        self.csv = CsvFormat("id", "predicted")

    def check(self) -> None:
        """Nothing can be missing."""

    def samples(self) -> list[Sample]:
        return [Sample(name, "test", SIDE, SIDE, "p", "") for name in ("one", "two")]

    def source(self, sample_id: str) -> Path:
        return self.root / f"{sample_id}.tif"

    def mask(self, sample_id: str) -> RunMask | None:
        return None

    def submission_ids(self) -> list[str]:
        return ["one", "two"]


def test_slides_show_the_mask_of_the_csv(full: Places, look: Callable[..., Content], tmp_path: Path) -> None:
    import rasterio

    slides = TwoSlides(tmp_path)
    folder = full[1] / "slides" / "net"
    profile = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": 3, "dtype": "uint8"}
    for name in ("one", "two"):
        with rasterio.open(tmp_path / f"{name}.tif", "w", photometric="RGB", **profile) as file:
            file.write(np.full((3, SIDE, SIDE), 200, np.uint8))
        band_file(folder / "predictions" / f"{name}.tif", [(0, 0, 32)])
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[10:20, 30:50] = 1
    (folder / "submission.csv").write_text(f"id,predicted\none,{RunMask.from_mask(mask).text()}\n")
    write_json(folder / "provenance.json", {"ensemble": {**record(full), "instances": None, "threshold": 0.5}})
    found = look(competition=slides).tests["net"]
    assert found.problems == []
    assert [one["share"] for one in found.predicted] == pytest.approx([100 * 200 / SIDE**2, 25.0], rel=1e-6)
    assert [item.picture.layers.prediction.count("M") for item in found.items] == [1, 1]


def test_what_was_submitted_before_it_was_predicted_anew_is_left_out(
    competition: Competition, full: Places, look: Callable[..., Content]
) -> None:
    folder = full[1] / "invented" / "duo"
    write_labels(folder / "labels" / "test_00.tif", np.zeros((SIDE, SIDE), np.uint8))
    provenance = read_json(folder / "provenance.json")
    known = look(name="duo")
    (one,) = [one for one in known.found.submissions if one.name == "duo"]
    assert (one.csv, one.outdated, one.finished) == (folder / "submission.csv", False, provenance["submit"]["finished"])
    provenance["submit"]["predicted_anew"] = "2024-05-09T00:00:00+00:00"
    write_json(folder / "provenance.json", provenance)
    found = look(name="duo")
    (one,) = [one for one in found.found.submissions if one.name == "duo"]
    assert (one.csv, one.scores, one.outdated, one.finished) == (None, None, True, None)
    assert "Predicted anew since duo was submitted: CSV and scores are left out; ./run.sh submit" in said(found)
    assert [row["objects"] for row in found.tests["duo"].predicted] == [4, 4, 4, 4], "not the older labels"
    (shown,) = submitted.section(found.found, competition, {}, None)["submissions"]
    tiles = {tile.label: tile for tile in shown["tiles"]}
    assert set(tiles) == {"Score", "submission.csv", "Made"}, "neither the test score nor Kaggle's"
    assert tiles["submission.csv"].value == "outdated"
    assert tiles["Made"].value == "predicted, not submitted"
